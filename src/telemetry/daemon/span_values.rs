//! The values of a span's fields, kept until a log line is written inside of the span.
//!
//! A consumer creates a span for each attempt at a record, and almost none of them has a log line.
//! `tracing_subscriber` formats the fields of each span at once. Here they are copied as they are,
//! and formatted by the first line: the layer [`LateFields`] stands in front of the log's layer,
//! and gives it the formatted fields just before it needs them.
//!
//! Owns the copies and the time of the formatting. Knows no format: that is a
//! [`FormatSpanValues`]. A value that has only a `Debug` or `Display` form is written as text at
//! once, because it may not outlive the creation of its span; what the format does with that text
//! waits for the line.

use std::fmt::{self, Write as _};
use std::marker::PhantomData;
use std::ops::Range;
use tracing::field::{Field, FieldSet, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

/// A format of fields that can format the values of a span later.
pub(super) trait FormatSpanValues: for<'writer> FormatFields<'writer> + 'static {
    /// Formats the values of the span whose metadata has these fields. The result is the same as
    /// that of [`FormatFields::format_fields`] for the span's attributes. Called under a lock of
    /// the span: must not write a log line.
    fn format_span_values(fields: &FieldSet, values: &SpanValues) -> String;
}

/// Passes lines to the layer `log`, which formats fields as `N`, with the fields of their spans
/// formatted only then.
///
/// `log` must write no lines of its own about spans (`with_span_events`), as it is not told of
/// their creation, entry and end.
pub(super) struct LateFields<L, N> {
    log: L,
    format: PhantomData<fn(N)>,
}

impl<S, N, E, W> LateFields<tracing_subscriber::fmt::Layer<S, N, E, W>, N> {
    /// Stands in front of this layer.
    pub(super) fn new(log: tracing_subscriber::fmt::Layer<S, N, E, W>) -> Self {
        Self {
            log,
            format: PhantomData,
        }
    }
}

impl<S, L, N> Layer<S> for LateFields<L, N>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    L: Layer<S>,
    N: FormatSpanValues,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut values = SpanValues::with_capacity(attributes.values().len());
        attributes.record(&mut values);
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().replace(values);
        }
    }

    /// Few spans get values later, such as those of an attempt that failed.
    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id) {
            format_values::<S, N>(&span);
        }
        self.log.on_record(id, values, ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        // A JSON line of an event that has no parent by its own choice names the current span.
        let spans = [ctx.event_span(event), ctx.lookup_current()];
        for span in spans.into_iter().flatten().flat_map(|span| span.scope()) {
            format_values::<S, N>(&span);
        }
        self.log.on_event(event, ctx);
    }
}

/// Gives the log the fields of a span, if it does not have them yet.
fn format_values<S, N>(span: &SpanRef<'_, S>)
where
    S: for<'lookup> LookupSpan<'lookup>,
    N: FormatSpanValues,
{
    let mut extensions = span.extensions_mut();
    if let Some(values) = extensions.remove::<SpanValues>() {
        let fields = N::format_span_values(span.metadata().fields(), &values);
        extensions.replace(FormattedFields::<N>::new(fields));
    }
}

/// The values of a span's fields, in their order.
pub(super) struct SpanValues {
    /// With the index of the field in its span.
    values: Vec<(usize, Value)>,
    /// The texts of all values.
    text: String,
}

/// The value of one field.
enum Value {
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    /// A text, as a part of the common one.
    Text(Range<usize>),
    /// The `Debug` form of another value, as a part of the common text.
    Debug(Range<usize>),
    Bytes(Box<[u8]>),
}

impl SpanValues {
    fn with_capacity(fields: usize) -> Self {
        Self {
            values: Vec::with_capacity(fields),
            text: String::with_capacity(fields * 8),
        }
    }

    /// Passes the values to a visitor. `fields` are those of the span.
    pub(super) fn record(&self, fields: &FieldSet, visitor: &mut dyn Visit) {
        for (index, value) in &self.values {
            let Some(field) = fields.iter().nth(*index) else {
                continue;
            };
            match value {
                Value::F64(value) => visitor.record_f64(&field, *value),
                Value::I64(value) => visitor.record_i64(&field, *value),
                Value::U64(value) => visitor.record_u64(&field, *value),
                Value::Bool(value) => visitor.record_bool(&field, *value),
                Value::Text(range) => visitor.record_str(&field, &self.text[range.clone()]),
                Value::Debug(range) => {
                    let text = &self.text[range.clone()];
                    visitor.record_debug(&field, &format_args!("{text}"));
                }
                Value::Bytes(value) => visitor.record_bytes(&field, value),
            }
        }
    }

    fn push(&mut self, field: &Field, value: Value) {
        self.values.push((field.index(), value));
    }
}

impl Visit for SpanValues {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, Value::F64(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, Value::U64(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, Value::Bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let start = self.text.len();
        self.text.push_str(value);
        self.push(field, Value::Text(start..self.text.len()));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.push(field, Value::Bytes(value.into()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let start = self.text.len();
        // An error can only be the value's own: what it wrote before is kept.
        let _ = write!(self.text, "{value:?}");
        self.push(field, Value::Debug(start..self.text.len()));
    }
}
