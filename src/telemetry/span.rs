//! The span of handling one record, with OpenTelemetry's messaging attribute names.
//!
//! Owns the attribute names. Knows no exporter: `tracing-opentelemetry` reads `otel.name` and
//! `otel.kind`, and a plain log shows the rest.

use crate::event::Record;
use tracing::Span;
use tracing::field::Empty;

/// The target of [`process_span`]: `RUST_LOG=info,evenkeel::process=off` disables these spans, and
/// keeps the log lines of handlers.
pub const PROCESS_TARGET: &str = "evenkeel::process";

/// Creates the span `process {topic}` of one attempt at a record, at level INFO.
///
/// Enter it (or instrument the handler's future with it) so that the handler's log lines name their
/// record. Without a listening subscriber it costs one check and reads nothing of the record.
/// `error.type` is empty: record it if the attempt fails. Neither key nor value is an attribute, as
/// both may contain personal data.
///
/// The consumer creates it around every attempt. A service whose handlers hand work to other tasks
/// instruments these with [`Span::current`](tracing::Span::current).
///
/// ```
/// use evenkeel::event::RecordBatchBuilder;
/// use evenkeel::telemetry::process_span;
///
/// let mut batch = RecordBatchBuilder::new();
/// let source = batch.source("shop.orders".into(), 0);
/// batch.push(source, 17, -1, None, Some(b"{}".as_slice()), []);
/// let record = batch.build(None).record(0).expect("one record");
/// let _entered = process_span(&record, "payments", 1).entered();
/// tracing::info!("names the record: topic, partition, offset and event id");
/// ```
pub fn process_span(record: &Record, group: &str, attempt: u32) -> Span {
    if !tracing::enabled!(target: PROCESS_TARGET, tracing::Level::INFO) {
        return Span::none();
    }
    let [id, source, ty] = event_attributes(record);
    let topic = record.topic();
    let value = record.value();
    tracing::info_span!(
        target: PROCESS_TARGET,
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        messaging.system = "kafka",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = topic,
        // A string by the convention, as other systems name their partitions.
        messaging.destination.partition.id = record.partition().to_string(),
        messaging.kafka.offset = record.offset(),
        messaging.kafka.message.tombstone = value.is_none().then_some(true),
        messaging.consumer.group.name = group,
        messaging.message.id = id,
        messaging.message.body.size = value.map(<[u8]>::len),
        cloudevents.event_id = id,
        cloudevents.event_source = source,
        cloudevents.event_type = ty,
        evenkeel.attempt = (attempt > 1).then_some(attempt),
        error.type = Empty,
    )
}

/// Id, source and type as in the headers: the last one of a name counts, and values that are not
/// UTF-8 are omitted. A structured event has them in its value, which is not parsed for a span.
fn event_attributes(record: &Record) -> [Option<&str>; 3] {
    let mut found = [None; 3];
    for (name, value) in record.headers() {
        let slot = match name {
            b"ce_id" => 0,
            b"ce_source" => 1,
            b"ce_type" => 2,
            _ => continue,
        };
        found[slot] = value.and_then(|value| std::str::from_utf8(value).ok());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::process_span;
    use crate::event::{Record, RecordBatchBuilder};
    use crate::telemetry::captured_log::capture;
    use serde_json::{Value, json};
    use tracing_subscriber::fmt::format::JsonFields;

    fn record(value: Option<&[u8]>) -> Record {
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source("shop.orders".into(), 3);
        let headers: [(&[u8], Option<&[u8]>); 4] = [
            (b"ce_id", Some(b"older")),
            (b"ce_id", Some(b"4711")),
            (b"ce_source", Some(b"\xff")),
            (b"ce_type", Some(b"shop.order-placed.v1")),
        ];
        batch.push(source, 42, -1, Some(b"key"), value, headers);
        batch.build(None).record(0).unwrap()
    }

    fn attributes(value: Option<&[u8]>, attempt: u32) -> Value {
        let subscriber = tracing_subscriber::fmt()
            .json()
            .fmt_fields(JsonFields::new());
        let log = capture(subscriber, || {
            let _entered = process_span(&record(value), "payments", attempt).entered();
            tracing::info!("handling");
        });
        let mut line: Value = serde_json::from_str(&log).unwrap();
        line["span"].take()
    }

    #[test]
    fn the_span_of_a_record_has_opentelemetrys_attribute_names() {
        let expected = json!({
            "name": "process",
            "otel.name": "process shop.orders",
            "otel.kind": "consumer",
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "shop.orders",
            "messaging.destination.partition.id": "3",
            "messaging.kafka.offset": 42,
            "messaging.consumer.group.name": "payments",
            "messaging.message.id": "4711",
            "messaging.message.body.size": 5,
            "cloudevents.event_id": "4711",
            "cloudevents.event_type": "shop.order-placed.v1",
        });
        assert_eq!(attributes(Some(b"value"), 1), expected);
    }

    #[test]
    fn a_span_marks_tombstones_and_further_attempts() {
        let attributes = attributes(None, 2);
        assert_eq!(attributes["messaging.kafka.message.tombstone"], json!(true));
        assert_eq!(attributes["messaging.message.body.size"], Value::Null);
        assert_eq!(attributes["evenkeel.attempt"], json!(2));
    }

    #[test]
    fn without_a_subscriber_there_is_no_span() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            assert!(process_span(&record(None), "payments", 1).is_none());
        });
    }
}
