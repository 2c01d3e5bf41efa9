//! What every daemon needs: logging, signals, and the admin server with /livez, /readyz and /metrics.
//!
//! Owns the process-wide parts: one subscriber, one metrics recorder, one pair of signal handlers. Knows no Kafka and no
//! store; they report through [`Health`] and the `metrics` facade. For Unix.

mod admin;
mod logging;
mod signals;

use super::{Health, Metric};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the recorder folds what the histograms collected, so that it stays bounded between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The component that says whether the process is stopping.
const PROCESS: &str = "process";

/// How a daemon is set up.
#[derive(Debug, Clone)]
pub struct DaemonSettings {
    /// The service's name.
    pub service: String,
    /// Where /livez, /readyz and /metrics are served; nowhere when none. Port 0 takes a free one, see [`Daemon::admin`].
    /// Whoever reaches it can read topic names, lag and errors: bind it to an address that only probes and Prometheus reach.
    pub admin: Option<SocketAddr>,
    /// Log as JSON lines instead of text.
    pub log_json: bool,
}

impl DaemonSettings {
    /// A service by its name, with no admin server and logs as text.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            admin: None,
            log_json: false,
        }
    }
}

/// A running daemon's surroundings. They last as long as the runtime, so dropping this ends nothing: a daemon answers its
/// probes until its process ends.
#[derive(Debug)]
pub struct Daemon {
    /// Cancelled by the first SIGTERM or SIGINT. One that comes a second later or after that ends the process at once with 143
    /// or 130; those in between belong to the first.
    pub stop: CancellationToken,
    /// The health served on /livez and /readyz.
    pub health: Health,
    /// Where the admin server listens, once bound.
    pub admin: Option<SocketAddr>,
}

impl Daemon {
    /// Installs logging (standard error, `RUST_LOG`, by default `info`), the metrics recorder, signal handling and the
    /// admin server. When it returns, probes are answered and signals are heeded.
    ///
    /// Not ready from the moment that `stop` is cancelled, by whomever, so that no traffic comes while the process drains.
    ///
    /// # Errors
    /// When `RUST_LOG` cannot be read, another metrics recorder is installed already, or the address is taken; the
    /// message says which. A subscriber that is installed already is kept.
    pub async fn start(settings: DaemonSettings) -> io::Result<Self> {
        logging::install(settings.log_json)?;
        let metrics = recorder()?;
        let (stop, health) = (CancellationToken::new(), Health::default());
        health.set_ready(PROCESS, Ok(()));
        signals::listen(stop.clone())?;
        let admin = match settings.admin {
            Some(address) => Some(admin::serve(address, health.clone(), metrics.clone()).await?),
            None => None,
        };
        Metric::describe_all();
        metrics::gauge!(
            Metric::ServiceInfo.name(),
            "service" => settings.service.clone(),
            "version" => env!("CARGO_PKG_VERSION"),
        )
        .set(1);
        tokio::spawn(upkeep(metrics));
        tokio::spawn(unready_when_stopping(stop.clone(), health.clone()));
        let address = admin.map(tracing::field::display);
        tracing::info!(service = settings.service, admin = address, "started");
        Ok(Self {
            stop,
            health,
            admin,
        })
    }
}

/// Installs the recorder, once a process: the `metrics` facade can be given one only once.
///
/// Series are never timed out, as the library keeps handles to them, and a handle to a forgotten series would count
/// unseen.
fn recorder() -> io::Result<PrometheusHandle> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let histogram = Matcher::Full(Metric::HandlerSeconds.name().to_owned());
            PrometheusBuilder::new()
                .set_buckets_for_metric(histogram, Metric::DURATION_BUCKETS)
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| format!("cannot install the metrics recorder: {error}"))
        })
        .clone()
        .map_err(io::Error::other)
}

async fn upkeep(metrics: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
    }
}

async fn unready_when_stopping(stop: CancellationToken, health: Health) {
    stop.cancelled().await;
    health.set_ready(PROCESS, Err("stopping".to_owned()));
}

#[cfg(test)]
mod tests;
