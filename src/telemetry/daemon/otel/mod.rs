//! The export of spans to an OpenTelemetry collector, over OTLP (HTTP, protobuf).
//!
//! Owns the pipeline: a layer of `tracing-opentelemetry`, the SDK's bounded queue and its thread,
//! and the client of the collector. OpenTelemetry's crates appear in no signature here.
//!
//! - `environment`: the variables that configure it
//! - `collector`: sends batches through the program's runtime, and logs an outage once
//!
//! # Bounds
//! Ended spans wait in a queue of 2,048 (`OTEL_BSP_MAX_QUEUE_SIZE`). A thread sends 512 at a time,
//! at the latest after 5 s. A request that fails in passing (no answer, 429, 502, 503 or 504) is
//! repeated up to three times, within the time of one request. Then its batch is dropped, and so
//! are spans that find the queue full: nothing but that thread waits for a collector.

mod collector;
mod environment;

use crate::telemetry::instance;
use crate::telemetry::propagation::set_exporting;
use collector::Collector;
use environment::Environment;
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::fmt;
use std::io;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, dynamic_filter_fn};
use tracing_subscriber::registry::LookupSpan;

/// How long the end of the export waits for the collector.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// The name of the instrumentation in every span.
const SCOPE: &str = "evenkeel";

/// The export of spans. A [`Daemon`](super::Daemon) has one where the environment names a
/// collector. A host with a subscriber of its own creates it and adds its layer:
///
/// ```
/// use evenkeel::telemetry::daemon::SpanExport;
/// use tracing_subscriber::Registry;
/// use tracing_subscriber::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// // None here, as OTEL_EXPORTER_OTLP_ENDPOINT is not set.
/// let export = SpanExport::from_env("orders-web")?;
/// let layer = export.as_ref().map(SpanExport::layer::<Registry>);
/// let subscriber = tracing_subscriber::registry()
///     .with(layer)
///     .with(tracing_subscriber::fmt::layer());
/// # drop(subscriber);
/// // At the end of the program:
/// if let Some(export) = export {
///     export.finish().await;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Environment
///
/// | variable | meaning |
/// |---|---|
/// | `OTEL_EXPORTER_OTLP_ENDPOINT` | URL of the collector, such as `http://collector:4318`. Unset: no export |
/// | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | the URL for spans, used as it is; it comes first |
/// | `OTEL_EXPORTER_OTLP_HEADERS` | headers of each request: `name=value,name=value` |
/// | `OTEL_EXPORTER_OTLP_TIMEOUT` | the time of a request, in milliseconds. Default 10,000 |
/// | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | describe the process. Default: the service's name, host and process id |
/// | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | which traces are sampled. Default `parentbased_always_on` |
/// | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | no export |
/// | `EVENKEEL_SPANS` | which spans are exported: levels by target, like `RUST_LOG`. Default `info,evenkeel=debug` |
#[derive(Clone)]
pub struct SpanExport {
    provider: SdkTracerProvider,
    spans: Targets,
    environment: Environment,
}

impl SpanExport {
    /// Creates the export that the environment describes. `None` if it names no collector, or
    /// disables the export. `service` is the service's name if no variable has one.
    ///
    /// Requests run on the Tokio runtime inside of which it is called.
    ///
    /// # Errors
    /// If a variable cannot be used. The message names it.
    pub fn from_env(service: &str) -> io::Result<Option<Self>> {
        let variable = |name: &str| std::env::var(name).ok();
        match Environment::read(&variable, service)? {
            Some(environment) => Self::new(environment).map(Some),
            None => Ok(None),
        }
    }

    fn new(environment: Environment) -> io::Result<Self> {
        let spans = environment.spans()?;
        let collector = Collector::new(environment.timeout).map_err(io::Error::other)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(collector)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&environment.endpoint)
            .with_timeout(environment.timeout)
            .build()
            .map_err(io::Error::other)?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource(&environment.service))
            .with_batch_exporter(exporter)
            .build();
        Ok(Self {
            provider,
            spans,
            environment,
        })
    }

    /// The layer that exports spans, for a subscriber. It ignores log lines, and has a filter of
    /// its own. From this call on, published events carry the context of the current span.
    pub fn layer<S>(&self) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync + 'static,
    {
        set_exporting(true);
        let spans = self.spans.clone();
        // A question whether a level is enabled is neither a span nor an event.
        let is_exported = move |metadata: &Metadata<'_>| {
            !metadata.is_event()
                && *metadata.level() <= Level::DEBUG
                && spans.would_enable(metadata.target(), metadata.level())
        };
        let of_callsite = is_exported.clone();
        // Asked again for each span. A callsite whose answer is known is not asked, and then the
        // thread's last answer counts, which may be about a line of the log: librdkafka's client
        // asks whether its level is enabled, and the next span would be missing.
        let filter = dynamic_filter_fn(move |metadata, _| is_exported(metadata))
            .with_callsite_filter(move |metadata| match of_callsite(metadata) {
                true => Interest::sometimes(),
                false => Interest::never(),
            })
            .with_max_level_hint(LevelFilter::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(SCOPE))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter)
            .boxed()
    }

    /// Exports the spans that still wait, for at most 2 s, and ends the export.
    pub async fn finish(&self) {
        set_exporting(false);
        let provider = self.provider.clone();
        let shutdown = move || provider.shutdown_with_timeout(FINISH_WITHIN);
        match tokio::task::spawn_blocking(shutdown).await {
            Ok(Ok(())) => tracing::debug!("all spans are exported"),
            // The collector's client has logged why. A second call finds the export ended.
            Ok(Err(error)) => tracing::debug!(%error, "spans may be lost"),
            Err(error) => tracing::debug!(%error, "the end of the export was not awaited"),
        }
    }

    /// Logs where spans go, and the variables that have no effect.
    pub(super) fn log_settings(&self) {
        for warning in &self.environment.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            collector = self.environment.visible_endpoint(),
            "spans are exported"
        );
    }
}

impl fmt::Debug for SpanExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanExport")
            .field("collector", &self.environment.visible_endpoint())
            .finish_non_exhaustive()
    }
}

/// Drops the layer's part in the export, for a subscriber that was not installed.
pub(super) fn not_installed() {
    set_exporting(false);
}

/// What describes this process: the variables' attributes, the service's name, and its instance if
/// no variable has one.
fn resource(service: &str) -> Resource {
    const INSTANCE: &str = "service.instance.id";
    // With the variables' attributes.
    let described = || Resource::builder().with_service_name(service.to_owned());
    let resource = described().build();
    if resource.get(&Key::from_static_str(INSTANCE)).is_some() {
        return resource;
    }
    let instance = KeyValue::new(INSTANCE, instance(None));
    described().with_attribute(instance).build()
}
