//! The trace context of spans: from the headers of a record into a span, and from a span into the
//! headers of what is published.
//!
//! Owns the conversion between [`TraceContext`] and OpenTelemetry's types, which appear nowhere
//! else but in the exporter (`daemon/otel`). Without the feature `otel`, and while no spans are
//! exported, every function here costs one check and does nothing.
//!
//! # Rules
//!
//! | span | parent | link |
//! |---|---|---|
//! | `process`, first attempt | the context that the record carries | none |
//! | `process`, later attempt | the same | the same, as time has passed |
//! | `process` of a batch | none | the span of each of its deliveries |
//! | `send` of an event | the current span; the record gets the context of `send` | none |
//! | `send` of a record that carries a context | the current span, if it is of that trace, otherwise the carried context | the carried context, unless it is the parent |

use crate::event::TraceContext;
use tracing::Span;

/// The trace context of a span that is exported. `None` without the feature `otel`, while no spans
/// are exported, and for a span that the exporter does not see.
///
/// The context of a span that is not sampled is returned too: it says so, and whoever continues it
/// is not sampled either.
///
/// ```
/// use evenkeel::telemetry::trace_of;
///
/// // No spans are exported here.
/// assert_eq!(trace_of(&tracing::Span::current()), None);
/// ```
pub fn trace_of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() || !is_exporting() {
        return None;
    }
    bridge::trace_of(span)
}

/// The trace context of the innermost current span that is exported; see [`trace_of`]. A span that
/// only the log sees does not hide it.
pub fn current_trace() -> Option<TraceContext> {
    is_exporting().then(bridge::current_trace).flatten()
}

/// Makes a context from elsewhere, such as that of an HTTP request, the parent of a span. Call it
/// before the span is entered. Does nothing for a span that is not exported, and for a
/// `traceparent` that is invalid.
///
/// ```
/// use evenkeel::event::{Headers, TraceContext};
/// use evenkeel::telemetry::continue_trace;
///
/// let mut headers = Headers::new();
/// let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// headers.push("traceparent", Some(traceparent.as_bytes()));
/// let span = tracing::info_span!("request", otel.kind = "server");
/// if let Some(caller) = TraceContext::from_headers(headers.iter()) {
///     continue_trace(&span, &caller);
/// }
/// ```
pub fn continue_trace(span: &Span, parent: &TraceContext) {
    if !span.is_disabled() && is_exporting() {
        bridge::set_parent(span, parent);
    }
}

/// Links a span to a context: they belong together, although neither is the parent of the other.
pub(crate) fn link(span: &Span, to: &TraceContext) {
    if !span.is_disabled() && is_exporting() {
        bridge::link(span, to);
    }
}

/// Puts a new span of sending into the trace that its record carries: as a child of the current
/// span where that is of the trace, otherwise of the carried context.
pub(crate) fn continue_carried(span: &Span, carried: &TraceContext) {
    if span.is_disabled() || !is_exporting() {
        return;
    }
    match current_trace() {
        Some(current) if current.traceparent == carried.traceparent => {}
        Some(current) if current.trace_id() == carried.trace_id() => bridge::link(span, carried),
        _ => bridge::set_parent(span, carried),
    }
}

/// Whether the spans of this process are exported.
#[cfg(feature = "otel")]
pub(crate) fn is_exporting() -> bool {
    bridge::IS_EXPORTING.load(std::sync::atomic::Ordering::Relaxed)
}

/// Whether the spans of this process are exported: not without the feature `otel`.
#[cfg(not(feature = "otel"))]
pub(crate) fn is_exporting() -> bool {
    false
}

/// Declares whether a layer exports spans from now on.
#[cfg(feature = "otel")]
pub(crate) fn set_exporting(is_exporting: bool) {
    bridge::IS_EXPORTING.store(is_exporting, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(feature = "otel")]
mod bridge {
    use crate::event::TraceContext;
    use opentelemetry::Context;
    use opentelemetry::trace::{
        SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
    };
    use std::sync::atomic::AtomicBool;
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    pub(super) static IS_EXPORTING: AtomicBool = AtomicBool::new(false);

    /// The flags of a `traceparent` that are propagated: sampled (1) and random trace id (2).
    const KNOWN_FLAGS: u8 = 0b11;

    pub(super) fn trace_of(span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let active = context.span();
        let found = active.span_context();
        found.is_valid().then(|| from_otel(found))
    }

    /// The layer attaches the context of each exported span while it is entered.
    pub(super) fn current_trace() -> Option<TraceContext> {
        let context = Context::current();
        let active = context.span();
        let found = active.span_context();
        found.is_valid().then(|| from_otel(found))
    }

    pub(super) fn set_parent(span: &Span, parent: &TraceContext) {
        if let Some(remote) = to_otel(parent) {
            // Refused only for a span without the layer, or one that was entered before: it keeps
            // the parent that it has.
            let _ = span.set_parent(Context::new().with_remote_span_context(remote));
        }
    }

    pub(super) fn link(span: &Span, to: &TraceContext) {
        if let Some(remote) = to_otel(to) {
            span.add_link(remote);
        }
    }

    fn from_otel(found: &SpanContext) -> TraceContext {
        let (trace_id, span_id) = (found.trace_id(), found.span_id());
        let flags = found.trace_flags().to_u8() & KNOWN_FLAGS;
        let state = found.trace_state().header();
        TraceContext {
            traceparent: format!("00-{trace_id}-{span_id}-{flags:02x}"),
            tracestate: Some(state).filter(|state| !state.is_empty()),
        }
    }

    /// `None` for an invalid `traceparent`. A `tracestate` that cannot be read is dropped.
    fn to_otel(trace: &TraceContext) -> Option<SpanContext> {
        let text = &trace.traceparent;
        let trace_id = TraceId::from_hex(text.get(3..35)?).ok()?;
        let span_id = SpanId::from_hex(text.get(36..52)?).ok()?;
        let flags = u8::from_str_radix(text.get(53..55)?, 16).ok()?;
        let flags = TraceFlags::new(flags & KNOWN_FLAGS);
        let state = trace.tracestate.as_deref().map(state);
        let state = state.unwrap_or_default();
        let found = SpanContext::new(trace_id, span_id, flags, true, state);
        found.is_valid().then_some(found)
    }

    fn state(text: &str) -> TraceState {
        let members = text.split(',').map(str::trim);
        let members = members.filter_map(|member| member.split_once('='));
        TraceState::from_key_value(members).unwrap_or_default()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_context_survives_the_way_into_opentelemetry_and_back() {
            for (flags, tracestate) in [
                ("00", None),
                ("01", Some("vendor=1,other=2")),
                ("03", Some("a=")),
            ] {
                let id = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
                let trace = TraceContext {
                    traceparent: format!("00-{id}-{flags}"),
                    tracestate: tracestate.map(str::to_owned),
                };
                let otel = to_otel(&trace).expect("a valid context");
                assert_eq!(otel.is_sampled(), flags != "00", "{flags}");
                assert!(otel.is_remote());
                assert_eq!(from_otel(&otel), trace);
            }
        }

        #[test]
        fn an_invalid_context_is_none_and_an_unreadable_state_dropped() {
            let trace = |traceparent: &str, tracestate: &str| TraceContext {
                traceparent: traceparent.to_owned(),
                tracestate: Some(tracestate.to_owned()),
            };
            assert!(to_otel(&trace("nonsense", "")).is_none());
            let zeros = "00-00000000000000000000000000000000-0000000000000000-01";
            assert!(to_otel(&trace(zeros, "")).is_none());
            let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let otel = to_otel(&trace(valid, "UPPER=1")).expect("a valid context");
            assert_eq!(from_otel(&otel).tracestate, None);
            let spaced = to_otel(&trace(valid, "a=1, b=2")).expect("a valid context");
            assert_eq!(from_otel(&spaced).tracestate.as_deref(), Some("a=1,b=2"));
        }
    }
}

/// No spans are exported without the feature.
#[cfg(not(feature = "otel"))]
mod bridge {
    use crate::event::TraceContext;
    use tracing::Span;

    pub(super) fn current_trace() -> Option<TraceContext> {
        None
    }

    pub(super) fn trace_of(_: &Span) -> Option<TraceContext> {
        None
    }

    pub(super) fn set_parent(_: &Span, _: &TraceContext) {}

    pub(super) fn link(_: &Span, _: &TraceContext) {}
}
