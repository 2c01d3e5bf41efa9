//! Logs on standard error, as text for people or as JSON lines for collectors.
//!
//! Owns the format. Standard output remains for the output of commands. The fields of spans are
//! formatted when a line needs them (`span_values`).

use super::log_filter::LogFilter;
use super::span_values::{FormatSpanValues, LateFields, SpanValues};
use crate::telemetry::escape::VisibleWriter;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal};
use tracing::field::{Field, FieldSet, Visit};
use tracing::{Dispatch, Subscriber};
use tracing_subscriber::field::VisitOutput;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{JsonFields, JsonVisitor, Writer};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
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
    let form = match json {
        true => LineForm::Json,
        false => LineForm::Text {
            has_colours: io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        },
    };
    let installed = subscriber(form, filter, spans, io::stderr).try_init();
    if installed.is_err() {
        tracing::debug!("a tracing subscriber is already installed and is kept");
    }
    Ok(installed.is_ok())
}

/// The form of a log line.
#[derive(Clone, Copy)]
enum LineForm {
    Json,
    Text { has_colours: bool },
}

/// The subscriber: the log in `writer`, filtered, and the layer that exports spans.
fn subscriber<W>(form: LineForm, filter: EnvFilter, spans: Option<SpanLayer>, writer: W) -> Dispatch
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = LogFilter::new(filter);
    match spans {
        None => tracing_subscriber::registry()
            .with(filter)
            .with(log_layer(form, writer))
            .into(),
        Some(spans) => tracing_subscriber::registry()
            .with(spans)
            .with(log_layer(form, writer).with_filter(filter))
            .into(),
    }
}

/// The layer that writes the log.
fn log_layer<S, W>(form: LineForm, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span> + 'static,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer::<S>().with_writer(writer);
    match form {
        LineForm::Json => {
            let layer = layer
                .json()
                .flatten_event(true)
                .with_current_span(true)
                .with_span_list(false);
            LateFields::new(layer).boxed()
        }
        LineForm::Text { has_colours } => {
            let layer = layer.fmt_fields(TextFields).with_ansi(has_colours);
            LateFields::new(layer).boxed()
        }
    }
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

impl FormatSpanValues for TextFields {
    fn format_span_values(fields: &FieldSet, values: &SpanValues) -> String {
        let mut text = String::new();
        let mut visitor = TextVisitor {
            writer: Writer::new(&mut text),
            separator: "",
            result: Ok(()),
        };
        values.record(fields, &mut visitor);
        text
    }
}

impl FormatSpanValues for JsonFields {
    fn format_span_values(fields: &FieldSet, values: &SpanValues) -> String {
        let mut json = String::new();
        let mut visitor = JsonVisitor::new(&mut json);
        values.record(fields, &mut visitor);
        // Writing to a string cannot fail.
        let _ = visitor.finish();
        json
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
    use super::*;
    use crate::telemetry::captured_log::{capture, capture_by};
    use std::cell::Cell;
    use tracing::field::Empty;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    use tracing_subscriber::layer::Identity;

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

    /// Lines inside of nested spans, whose fields have values of all kinds, some recorded later.
    fn spans_and_lines() {
        let error = std::io::Error::other("no\nroom");
        let outer = tracing::info_span!(
            "outer",
            otel.kind = "consumer",
            topic = "orders",
            partition = 3_u64,
            offset = -42_i64,
            ratio = 0.1 + 0.2,
            is_new = true,
            id = "4711\n\u{1b}[2J",
            large = i128::MIN,
            bytes = &b"\x00\xff"[..],
            error = &error as &dyn std::error::Error,
            shown = %"a b",
            debug = ?["\u{202e}"],
            later = Empty,
            otel.status_code = Empty,
        );
        outer.in_scope(|| {
            tracing::info!(topic = "own", "first");
            outer.record("later", "x y");
            outer.record("otel.status_code", "error");
            tracing::info!("second");
            let inner = tracing::debug_span!("inner", id = 7, later = Empty);
            inner.record("later", 1);
            inner.in_scope(|| {
                tracing::debug!("nested");
                tracing::warn!("nested");
                tracing::info!(parent: None, "without parent");
                tracing::info!(parent: &outer, "of the outer one");
            });
        });
        tracing::info_span!("empty").in_scope(|| tracing::info!("in an empty one"));
        tracing::info!("outside");
    }

    /// The lines without their timestamps.
    fn lines(log: &str) -> Vec<&str> {
        let lines = log.lines();
        lines
            .map(|line| line.split_once([' ', ',']).unwrap().1)
            .collect()
    }

    #[test]
    fn late_fields_are_those_of_a_span_formatted_at_once() {
        for (filter, count) in [
            ("info", 7),
            ("trace", 8),
            ("warn", 1),
            ("info,[inner{id=7}]=trace", 8),
            ("info,evenkeel=off", 0),
        ] {
            for form in [LineForm::Json, LineForm::Text { has_colours: false }] {
                let at_once = capture_by(
                    |writer| {
                        let layer = tracing_subscriber::fmt::layer().with_writer(writer);
                        let layer = match form {
                            LineForm::Json => layer
                                .json()
                                .flatten_event(true)
                                .with_current_span(true)
                                .with_span_list(false)
                                .boxed(),
                            LineForm::Text { has_colours } => {
                                layer.fmt_fields(TextFields).with_ansi(has_colours).boxed()
                            }
                        };
                        let filtered = tracing_subscriber::registry().with(EnvFilter::new(filter));
                        filtered.with(layer)
                    },
                    spans_and_lines,
                );
                assert_eq!(lines(&at_once).len(), count, "{filter}: {at_once}");
                for has_exporter in [false, true] {
                    let exporter = has_exporter.then(|| Identity::new().boxed());
                    let late = capture_by(
                        |writer| subscriber(form, EnvFilter::new(filter), exporter, writer),
                        spans_and_lines,
                    );
                    assert_eq!(lines(&late), lines(&at_once), "{filter}");
                }
            }
        }
    }

    thread_local! {
        /// How many spans were formatted on this thread.
        static FORMATTED: Cell<u32> = const { Cell::new(0) };
        /// How many values were displayed on this thread.
        static DISPLAYED: Cell<u32> = const { Cell::new(0) };
    }

    /// Counts the spans that it formats.
    struct Counted;

    impl<'writer> FormatFields<'writer> for Counted {
        fn format_fields<R: tracing_subscriber::field::RecordFields>(
            &self,
            writer: Writer<'writer>,
            fields: R,
        ) -> fmt::Result {
            TextFields.format_fields(writer, fields)
        }
    }

    impl FormatSpanValues for Counted {
        fn format_span_values(fields: &FieldSet, values: &SpanValues) -> String {
            FORMATTED.set(FORMATTED.get() + 1);
            TextFields::format_span_values(fields, values)
        }
    }

    struct Displayed;

    impl fmt::Display for Displayed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            DISPLAYED.set(DISPLAYED.get() + 1);
            f.write_str("displayed")
        }
    }

    #[test]
    fn fields_are_formatted_once_and_only_for_a_line() {
        let run = |lines: usize| {
            FORMATTED.set(0);
            DISPLAYED.set(0);
            let build = |writer: BoxMakeWriter| {
                let layer = tracing_subscriber::fmt::layer().with_writer(writer);
                let layer = LateFields::new(layer.fmt_fields(Counted).with_ansi(false));
                tracing_subscriber::registry().with(layer)
            };
            let log = capture_by(build, || {
                let span = tracing::info_span!("outer", id = "o-1", value = %Displayed);
                let _entered = span.entered();
                let inner = tracing::info_span!("inner", id = "o-2").entered();
                drop(inner);
                (0..lines).for_each(|_| tracing::info!("a line"));
            });
            let expected = "outer{id=o-1 value=displayed}: ";
            assert_eq!(log.matches(expected).count(), lines, "{log}");
            (FORMATTED.get(), DISPLAYED.get())
        };
        assert_eq!(run(0), (0, 1), "a value that may not be kept is displayed");
        assert_eq!(run(1), (1, 1));
        assert_eq!(run(3), (1, 1));
    }
}
