//! The trace span of a sent record, with OpenTelemetry's names.
//!
//! Owns the attributes, by the semantic conventions for messaging. Without a listening subscriber
//! it costs one check of the filter.

use super::error::Failure;
use crate::event::{OutgoingRecord, TraceContext};
use crate::telemetry::{SEND_TARGET, continue_carried, is_exporting, mark_failed};
use tracing::{Span, debug_span, field};

/// Creates a span from the send of the record to its acknowledgement. It belongs to the trace that
/// the record carries, if it carries one.
pub(super) fn send(record: &OutgoingRecord) -> Span {
    // The macro evaluates the fields only if a subscriber listens.
    let span = debug_span!(
        target: SEND_TARGET,
        "send",
        otel.name = format!("send {}", record.topic),
        otel.kind = "producer",
        messaging.system = "kafka",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = record.topic,
        messaging.destination.partition.id = field::Empty,
        messaging.kafka.offset = field::Empty,
        messaging.kafka.message.tombstone = record.value.is_none(),
        messaging.message.body.size = record.value.as_ref().map_or(0, |value| value.len() as i64),
        messaging.message.id = record
            .headers
            .last("ce_id")
            .map(|id| String::from_utf8_lossy(id).into_owned()),
        error.type = field::Empty,
        otel.status_code = field::Empty,
    );
    if !span.is_disabled()
        && is_exporting()
        && let Some(carried) = TraceContext::from_headers(record.headers.iter())
    {
        continue_carried(&span, &carried);
    }
    span
}

/// Adds the outcome.
pub(super) fn end(span: &Span, outcome: Result<&(i32, i64), &Failure>) {
    if span.is_disabled() {
        return;
    }
    match outcome {
        Ok((partition, offset)) => {
            // A string, as OpenTelemetry defines it: not every system numbers its partitions.
            span.record(
                "messaging.destination.partition.id",
                partition.to_string().as_str(),
            );
            span.record("messaging.kafka.offset", *offset);
        }
        Err(failure) => {
            let kind = match failure {
                Failure::Refused(_) | Failure::NoTopic => "refused",
                Failure::TooLarge(_) => "too_large",
                Failure::Unfit(_) | Failure::NoPartition => "unfit",
                Failure::Unknown(_) => "unknown",
                Failure::Fatal(_) => "fatal",
            };
            mark_failed(span, kind);
        }
    }
}
