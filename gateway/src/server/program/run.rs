//! Runs a gateway as a process: logs, signals, the admin server, and the exit code.

use crate::server::gateway::Gateway;
use crate::server::settings::GatewaySettings;
use anyhow::Result;
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use evenkeel_program::exit::Ending;
use std::net::SocketAddr;

/// The name of the program in logs and metrics.
const SERVICE: &str = "gateway";

/// The settings of the program `gateway`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProgramSettings {
    /// The settings of the gateway.
    pub gateway: GatewaySettings,
    /// Address of the admin server. None: no server.
    pub admin: Option<SocketAddr>,
    /// Whether to log JSON lines.
    pub log_json: bool,
    /// Warnings about the settings, to be logged.
    pub warnings: Vec<String>,
}

impl ProgramSettings {
    /// Settings without an admin server, with logs as text.
    pub fn new(gateway: GatewaySettings) -> Self {
        Self {
            gateway,
            admin: None,
            log_json: false,
            warnings: Vec::new(),
        }
    }
}

/// Runs a gateway until a signal stops it. A clean stop is [`Ending::Done`]; one that cut requests
/// is [`Ending::Unknown`].
///
/// # Errors
/// If an address, a file or the store cannot be used, or the relay fails permanently.
pub async fn run(settings: ProgramSettings) -> Result<Ending> {
    let surroundings = DaemonSettings::new(SERVICE)
        .with_admin(settings.admin)
        .with_log_json(settings.log_json);
    let daemon = Daemon::start(surroundings).await?;
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if settings.gateway.is_open() {
        tracing::warn!("no authentication: every request has all rights");
    }
    let gateway = Box::pin(Gateway::open(settings.gateway, daemon.health.clone())).await?;
    let ran = Box::pin(gateway.run(daemon.stop.clone())).await;
    daemon.finish_spans().await;
    let report = ran?;
    tracing::info!(requests_cut = report.requests_cut, "stopped");
    Ok(match report.is_clean() {
        true => Ending::Done,
        false => Ending::Unknown,
    })
}
