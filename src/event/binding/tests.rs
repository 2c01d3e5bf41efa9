//! The binding from outside: what is written is read again, and nothing that is read can make it panic.

use super::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Payload {
    name: String,
    count: u64,
}

impl EventType for Payload {
    const TYPE: &'static str = "test.counted.v1";
    const TOPIC: &'static str = "test.counts";

    fn key(&self) -> String {
        self.name.clone()
    }
}

fn payload() -> Payload {
    Payload {
        name: "nüsse".to_owned(),
        count: u64::MAX,
    }
}

fn full_event() -> Event<Payload> {
    let mut event = Event::new("/test/counter", payload());
    event.attributes.subject = Some("nüsse".to_owned());
    event.attributes.dataschema = Some("urn:test:counted:1".to_owned());
    event.attributes.extensions = BTreeMap::from([("partitionkey".to_owned(), "a b".to_owned())]);
    event
}

#[test]
fn binary_mode_puts_attributes_into_headers_and_the_payload_into_the_value() {
    let event = full_event();
    let record = encode(&event, ContentMode::Binary, None).expect("encodes");

    let written: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.expect("has a value");
            (
                String::from_utf8_lossy(name).into_owned(),
                String::from_utf8_lossy(value).into_owned(),
            )
        })
        .collect();
    let time = event.attributes.time.expect("set by new").to_string();
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", &event.attributes.id),
        ("ce_source", "/test/counter"),
        ("ce_type", "test.counted.v1"),
        ("ce_subject", "nüsse"),
        ("ce_time", &time),
        ("content-type", "application/json"),
        ("ce_dataschema", "urn:test:counted:1"),
        ("ce_partitionkey", "a b"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(written, expected);
    assert_eq!(record.topic, "test.counts");
    assert_eq!(record.key.as_deref(), Some("nüsse".as_bytes()));
    let value = serde_json::to_vec(&event.data).expect("serialises");
    assert_eq!(record.value.as_deref(), Some(value.as_slice()));
    assert_eq!((record.partition, record.timestamp_ms), (None, None));
}

#[test]
fn an_event_known_at_run_time_is_written_like_a_typed_one() {
    let event = full_event();
    let untyped = JsonEvent {
        attributes: event.attributes.clone(),
        topic: Payload::TOPIC.to_owned(),
        key: Some(Bytes::from(event.data.key())),
        data: serde_json::json!({"name": "nüsse", "count": u64::MAX}),
    };
    let trace = TraceContext::root();
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let typed = encode(&event, mode, Some(&trace)).expect("encodes");
        let record = encode_json(&untyped, mode, Some(&trace)).expect("encodes");
        assert_eq!((&record.topic, &record.key), (&typed.topic, &typed.key));
        assert_eq!(record.headers, typed.headers);
        let value = |record: &OutgoingRecord| -> serde_json::Value {
            let bytes = record.value.as_deref().expect("has a value");
            serde_json::from_slice(bytes).expect("is JSON")
        };
        assert_eq!(value(&record), value(&typed));
    }
}
