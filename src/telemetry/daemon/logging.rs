//! Logs on standard error, as text for people or as JSON lines for collectors.
//!
//! Owns the format. Standard output remains for the output of commands.

use crate::telemetry::escape::VisibleWriter;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// A layer that exports spans.
pub(super) type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Installs the subscriber: the log, filtered by `RUST_LOG`, and beside it the layer that exports
/// spans, which has a filter of its own. Returns whether it is installed: an already installed
/// subscriber is kept, as the program chose it.
pub(super) fn install(json: bool, spans: Option<SpanLayer>) -> io::Result<bool> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env()
        .map_err(|error| {
            let message =
                format!("RUST_LOG cannot be read: {error}; for example: info,evenkeel=debug");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
    let installed = match spans {
        None => tracing_subscriber::registry()
            .with(filter)
            .with(log_layer(json))
            .try_init(),
        Some(spans) => tracing_subscriber::registry()
            .with(spans)
            .with(log_layer(json).with_filter(filter))
            .try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a tracing subscriber is already installed and is kept");
    }
    Ok(installed.is_ok())
}

/// The layer that writes the log to standard error.
fn log_layer<S>(json: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span> + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    if json {
        return layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed();
    }
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    layer.fmt_fields(TextFields).with_ansi(colours).boxed()
}

/// Formats the fields of a text log as `name=value`, without those that are the same in every span:
/// they are for trace collectors.
///
/// Values are [visible](crate::telemetry::visible) text: data from a record, a header or an error
/// can neither break the line nor control the terminal. A daemon uses it; a program with a
/// subscriber of its own passes it to `fmt_fields`:
///
/// ```
/// use evenkeel::telemetry::daemon::TextFields;
///
/// let subscriber = tracing_subscriber::fmt().fmt_fields(TextFields).finish();
/// # drop(subscriber);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TextFields;

/// Fields with one value for all spans, or that repeat the message.
fn is_constant(name: &str) -> bool {
    name.starts_with("otel.")
        || name.starts_with("messaging.operation.")
        || name == "messaging.system"
        // Fields that the bridge from the `log` crate adds to the message.
        || name.starts_with("log.")
}

impl<'writer> FormatFields<'writer> for TextFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = TextVisitor {
            writer,
            separator: "",
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

/// Writes fields one after the other. After an error it writes nothing more.
struct TextVisitor<'writer> {
    writer: Writer<'writer>,
    separator: &'static str,
    result: fmt::Result,
}

impl TextVisitor<'_> {
    fn write(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        let separator = self.separator;
        if self.result.is_err() || is_constant(field.name()) {
            return;
        }
        let mut writer = VisibleWriter(&mut self.writer);
        self.result = match field.name() {
            "message" => write!(writer, "{separator}{value}"),
            name => write!(writer, "{separator}{name}={value}"),
        };
        self.separator = " ";
    }
}

impl Visit for TextVisitor<'_> {
    /// Debug form, so that the end of a text from outside is visible.
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" || value.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.write(field, format_args!("{value}"));
        } else {
            self.write(field, format_args!("{value:?}"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::TextFields;
    use crate::telemetry::captured_log::capture;

    #[test]
    fn no_field_recording_can_forge_a_log_line() {
        let evil = "no\n 2026 ERROR forged\u{1b}[2J\u{9b}m\u{202e}";
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .fmt_fields(TextFields);
        let log = capture(subscriber, || {
            let error = std::io::Error::other(evil);
            tracing::warn!(%error, "by Display");
            tracing::warn!(error = &error as &dyn std::error::Error, "by value");
            tracing::warn!(?evil, "by Debug");
            tracing::warn!(evil, "as text");
            tracing::warn!("in the message: {evil}");
            tracing::info_span!("span", %evil).in_scope(|| tracing::warn!("in a span"));
        });
        assert_eq!(log.lines().count(), 6, "{log}");
        let is_forged = |c: char| crate::telemetry::is_unsafe(c) && c != '\n';
        // The formatter itself adds colours. They are off here.
        assert!(!log.chars().any(is_forged), "{log:?}");
    }

    #[test]
    fn log_lines_show_distinguishing_span_fields_on_one_line() {
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_target(false)
            .fmt_fields(TextFields);
        let log = capture(subscriber, || {
            let span = tracing::info_span!(
                "process",
                otel.kind = "consumer",
                messaging.system = "kafka",
                messaging.destination.name = "shop.orders",
                messaging.message.id = "4711\n\u{1b}[2J",
            );
            span.in_scope(|| tracing::info!(attempt = 2, "handling"));
        });
        let expected = concat!(
            " INFO process{messaging.destination.name=shop.orders messaging.message.id=\"4711\\n\\u{1b}[2J\"}:",
            " handling attempt=2\n",
        );
        assert_eq!(log, expected);
    }
}
