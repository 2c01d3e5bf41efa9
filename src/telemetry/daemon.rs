//! What every daemon needs: logging, signals, and the admin server with /livez, /readyz and /metrics.

use super::Health;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// How a daemon is set up.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// The service's name.
    pub service: String,
    /// Where /livez, /readyz and /metrics are served; nowhere when none.
    pub admin: Option<SocketAddr>,
    /// Log as JSON lines instead of text.
    pub log_json: bool,
}

/// A running daemon's surroundings.
pub struct Daemon {
    /// Cancelled by the first SIGTERM or SIGINT; a second one ends the process at once with 143 or 130.
    pub stop: CancellationToken,
    /// The health served on /livez and /readyz.
    pub health: Health,
    /// Where the admin server listens, once bound.
    pub admin: Option<SocketAddr>,
}

impl Daemon {
    /// Installs logging (standard error, `RUST_LOG`), the metrics recorder, signal handling and the admin server.
    pub async fn start(_settings: DaemonSettings) -> std::io::Result<Self> {
        todo!()
    }
}
