//! The environment of every daemon: logging, signals, and the admin server with /livez, /readyz and
//! /metrics.
//!
//! Owns the process-wide parts: one subscriber, one metrics recorder, one pair of signal handlers.
//! Knows neither Kafka nor a store: they report through [`Health`] and the `metrics` facade. For
//! Unix.
//!
//! # What a process gets
//!
//! | part | owner | left out by |
//! |---|---|---|
//! | logs on standard error, by `RUST_LOG` | one subscriber per process | [`without_logs`] |
//! | SIGTERM and SIGINT as a request to stop | one pair of handlers | [`without_signals`] |
//! | metrics in Prometheus' text format | one recorder per process | [`without_recorder`] |
//! | spans to a collector (feature `otel`) | one exporter per process | `OTEL_EXPORTER_OTLP_ENDPOINT` unset, or [`without_logs`] |
//! | `/livez`, `/readyz`, `/metrics` | a server, or [`Daemon::router`] | [`admin`] unset |
//!
//! [`admin`]: DaemonSettings::admin
//! [`without_logs`]: DaemonSettings::without_logs
//! [`without_recorder`]: DaemonSettings::without_recorder
//! [`without_signals`]: DaemonSettings::without_signals
//!
//! The server shares the runtime with the service. It answers while the service drains: not ready
//! from the request to stop on, alive until the process ends.

mod address;
mod admin;
mod log_filter;
mod logging;
#[cfg(feature = "otel")]
mod otel;
mod server;
mod signals;
mod span_values;

pub use address::admin_address;
pub use logging::TextFields;
#[cfg(feature = "otel")]
pub use otel::SpanExport;

use super::{Health, Metric};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The interval at which the recorder folds the collected samples of the histograms, so that its
/// memory stays bounded between scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The component that reports whether the process is stopping.
const PROCESS: &str = "process";

/// The settings of a daemon. [`DaemonSettings::new`] sets the defaults.
///
/// ```
/// use evenkeel::telemetry::daemon::{DaemonSettings, admin_address};
///
/// let settings = DaemonSettings::new("payments")
///     .with_admin(admin_address("9100")?)
///     .with_log_json(true);
/// assert_eq!(settings.admin.map(|admin| admin.port()), Some(9100));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use = "settings do nothing until a daemon is started with them"]
pub struct DaemonSettings {
    /// The name of the service, as in the log and in the label `service` of
    /// [`Metric::ServiceInfo`].
    pub service: String,
    /// The address that serves /livez, /readyz and /metrics. None, the default, serves nothing.
    /// Port 0 takes a free port, see [`Daemon::admin`]. [`admin_address`] parses the usual
    /// notations. Its clients can read topic names, lag and errors: bind it to an address that only
    /// probes and Prometheus can reach. The server has at most 64 connections, each for one
    /// request.
    pub admin: Option<SocketAddr>,
    /// Whether to log JSON lines for collectors instead of text for people. Default false. The
    /// fields of an event are at the top level of its line.
    pub log_json: bool,
    installs_logs: bool,
    heeds_signals: bool,
    metrics: Metrics,
}

/// The recorder of a daemon's metrics.
#[derive(Clone)]
enum Metrics {
    /// A recorder installed by this module.
    Installed,
    /// The host's recorder, if it has one. It is not rendered here.
    Elsewhere,
    /// The host's recorder, with its renderer.
    Rendered(admin::Render),
}

impl DaemonSettings {
    /// Creates settings for a service of this name, without an admin server and with logs as text.
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            admin: None,
            log_json: false,
            installs_logs: true,
            heeds_signals: true,
            metrics: Metrics::Installed,
        }
    }

    /// Sets the address of the admin server. None serves nothing.
    pub fn with_admin(mut self, admin: impl Into<Option<SocketAddr>>) -> Self {
        self.admin = admin.into();
        self
    }

    /// Sets whether to log JSON lines instead of text.
    pub fn with_log_json(mut self, log_json: bool) -> Self {
        self.log_json = log_json;
        self
    }

    /// Installs no `tracing` subscriber. For a host that installs its own later, or wants none: one
    /// that is already installed is kept in any case. Then [`log_json`](Self::log_json) and
    /// `RUST_LOG` have no effect, and no spans are exported: with the feature `otel` the host adds
    /// the layer of `SpanExport` to its subscriber.
    pub fn without_logs(mut self) -> Self {
        self.installs_logs = false;
        self
    }

    /// Installs no handlers for SIGTERM and SIGINT. The host cancels [`Daemon::stop`] to stop, and
    /// decides when the process ends.
    pub fn without_signals(mut self) -> Self {
        self.heeds_signals = false;
        self
    }

    /// Installs no metrics recorder, and serves no /metrics. For a host with its own recorder and
    /// exporter.
    pub fn without_recorder(mut self) -> Self {
        self.metrics = Metrics::Elsewhere;
        self
    }

    /// Installs no metrics recorder, and serves the result of `render`, in Prometheus' text format,
    /// as /metrics. For a host with its own recorder: configure [`Metric::DURATION_BUCKETS`] for
    /// [`Metric::HandlerSeconds`] there, and run its upkeep.
    ///
    /// `render` is called on the runtime for each scrape and must not block for long.
    pub fn with_metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Metrics::Rendered(Arc::new(render));
        self
    }
}

impl fmt::Debug for DaemonSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DaemonSettings")
            .field("service", &self.service)
            .field("admin", &self.admin)
            .field("log_json", &self.log_json)
            .finish_non_exhaustive()
    }
}

/// The environment of a running daemon. It lasts as long as the runtime: dropping this value ends
/// nothing, and a daemon answers its probes until its process ends.
///
/// ```no_run
/// use evenkeel::telemetry::daemon::{Daemon, DaemonSettings, admin_address};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let mut settings = DaemonSettings::new("payments");
/// settings.admin = Some(admin_address("0.0.0.0:9100")?);
/// let daemon = Daemon::start(settings).await?;
/// // Pass `daemon.health` to consumers and relays, and `daemon.stop` to their `run`.
/// daemon.stop.cancelled().await;
/// # Ok(())
/// # }
/// ```
///
/// # Inside another program
/// A web service with its own subscriber, recorder and router nests the probes and the metrics:
///
/// ```
/// use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
/// use metrics_exporter_prometheus::PrometheusBuilder;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let recorder = PrometheusBuilder::new().install_recorder()?;
/// let settings = DaemonSettings::new("orders-web")
///     .without_logs()
///     .without_signals()
///     .with_metrics(move || recorder.render());
/// let daemon = Daemon::start(settings).await?;
/// let web: axum::Router = axum::Router::new().nest("/internal", daemon.router());
/// // Serve `web`, pass `daemon.health` to consumers and relays, and cancel `daemon.stop` to stop
/// // them.
/// # drop(web);
/// # Ok(())
/// # }
/// ```
pub struct Daemon {
    /// Cancelled by the first SIGTERM or SIGINT. A later signal, at least a second after it, ends
    /// the process at once with exit code 143 or 130. Signals in between belong to the first.
    pub stop: CancellationToken,
    /// The health that /livez and /readyz serve.
    pub health: Health,
    /// The address of the admin server. None without an admin server.
    pub admin: Option<SocketAddr>,
    metrics: Option<admin::Render>,
    #[cfg(feature = "otel")]
    spans: Option<SpanExport>,
}

impl Daemon {
    /// Installs logging (standard error, `RUST_LOG`, by default `info`), the metrics recorder,
    /// signal handling and the admin server, as far as the settings ask for them. When it returns,
    /// probes are answered and signals are handled. Start it before consumers and relays, so that
    /// no metric of theirs is lost.
    ///
    /// With the feature `otel` it exports spans to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT`
    /// names, if it names one; see `SpanExport`.
    ///
    /// The daemon is not ready from the cancellation of `stop` on, by a signal or by the program,
    /// so that it receives no traffic while it drains.
    ///
    /// Must be called inside a Tokio runtime. One process needs one daemon.
    ///
    /// # Errors
    /// Returns an error if `RUST_LOG` or a variable of the export cannot be parsed, another metrics
    /// recorder is already installed, or the address is in use. An already installed subscriber is
    /// kept. The error names the remedy; nothing that was installed before is undone.
    pub async fn start(settings: DaemonSettings) -> io::Result<Self> {
        #[cfg(feature = "otel")]
        let spans = install_logs_and_spans(&settings)?;
        #[cfg(not(feature = "otel"))]
        if settings.installs_logs {
            logging::install(settings.log_json, None)?;
        }
        let metrics = match settings.metrics {
            Metrics::Installed => Some(own_metrics()?),
            Metrics::Elsewhere => None,
            Metrics::Rendered(render) => Some(render),
        };
        let (stop, health) = (CancellationToken::new(), Health::default());
        health.set_ready(PROCESS, Ok(()));
        if settings.heeds_signals {
            signals::listen(stop.clone())?;
        }
        let router = admin::router(health.clone(), metrics.clone());
        let admin = match settings.admin {
            Some(address) => {
                let listener = server::bind(address).await?;
                let address = listener.local_addr()?;
                tokio::spawn(server::serve(listener, router));
                Some(address)
            }
            None => None,
        };
        if let Some(address) = admin {
            health.set_admin(address);
        }
        Metric::describe_all();
        metrics::gauge!(
            Metric::ServiceInfo.name(),
            "service" => settings.service.clone(),
            "version" => env!("CARGO_PKG_VERSION"),
        )
        .set(1);
        tokio::spawn(unready_when_stopping(stop.clone(), health.clone()));
        let address = admin.map(tracing::field::display);
        tracing::info!(service = settings.service, admin = address, "started");
        Ok(Self {
            stop,
            health,
            admin,
            metrics,
            #[cfg(feature = "otel")]
            spans,
        })
    }

    /// Exports the spans that still wait, for at most 2 s, and ends the export. Call it at the end
    /// of a program, after consumers, relays and publishers. Does nothing while no spans are
    /// exported, and without the feature `otel`.
    pub async fn finish_spans(&self) {
        #[cfg(feature = "otel")]
        if let Some(spans) = &self.spans {
            spans.finish().await;
        }
    }

    /// /livez, /healthz, /readyz and, if metrics are rendered, /metrics, to be nested into another
    /// router of the crate `axum`, version 0.8. Works beside the admin server or without one.
    ///
    /// ```
    /// # async fn example(daemon: evenkeel::telemetry::daemon::Daemon) {
    /// let web: axum::Router = axum::Router::new().nest("/internal", daemon.router());
    /// # drop(web);
    /// # }
    /// ```
    pub fn router(&self) -> axum::Router {
        admin::router(self.health.clone(), self.metrics.clone())
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daemon")
            .field("health", &self.health)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Installs the subscriber, with the layer that exports spans where the environment asks for it.
#[cfg(feature = "otel")]
fn install_logs_and_spans(settings: &DaemonSettings) -> io::Result<Option<SpanExport>> {
    if !settings.installs_logs {
        return Ok(None);
    }
    let spans = SpanExport::from_env(&settings.service)?;
    let layer = spans.as_ref().map(SpanExport::layer);
    let is_installed = logging::install(settings.log_json, layer)?;
    let Some(spans) = spans else {
        return Ok(None);
    };
    if !is_installed {
        otel::not_installed();
        tracing::warn!(
            "no spans are exported: another subscriber is installed; add SpanExport::layer to it"
        );
        return Ok(None);
    }
    spans.log_settings();
    Ok(Some(spans))
}

/// The installed recorder, with upkeep while the runtime runs. Its tasks end with the runtime.
fn own_metrics() -> io::Result<admin::Render> {
    let recorder = recorder()?;
    tokio::spawn(upkeep(recorder.clone()));
    Ok(Arc::new(move || recorder.render()))
}

/// Installs the recorder, once per process: the `metrics` facade accepts only one.
///
/// Series never expire, as the library keeps handles to them: counts on a handle of an expired
/// series would be lost.
fn recorder() -> io::Result<PrometheusHandle> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            // Also those of the service's own, such as the gateway's.
            let durations = Matcher::Suffix("_seconds".to_owned());
            PrometheusBuilder::new()
                .set_buckets_for_metric(durations, Metric::DURATION_BUCKETS)
                .and_then(PrometheusBuilder::install_recorder)
                .map_err(|error| {
                    format!(
                        "cannot install the metrics recorder: {error}; in a program with its own recorder, use \
                         DaemonSettings::with_metrics or without_recorder"
                    )
                })
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
