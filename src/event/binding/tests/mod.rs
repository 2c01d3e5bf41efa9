//! The binding from outside.
//!
//! - `binary`, `structured`: the output of each mode, and its errors for malformed records
//! - `sdks`: records of other SDKs are read as they wrote them, and our records are as these SDKs
//!   read them
//! - `properties`: encoded events decode again, and no input makes the decoder panic

mod binary;
mod properties;
mod sdks;
mod structured;

use super::*;
use crate::event::Headers;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
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

fn headers(pairs: &[(&str, Option<&[u8]>)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in pairs {
        headers.push(name, *value);
    }
    headers
}

#[test]
fn the_trace_of_the_hop_is_written_as_plain_headers() {
    let mut trace = TraceContext::root();
    trace.tracestate = Some("vendor=1".to_owned());
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let record = encode(&full_event(), mode, Some(&trace)).expect("the event can be encoded");
        assert_eq!(
            TraceContext::from_headers(record.headers.iter()),
            Some(trace.clone())
        );
        let without = encode(&full_event(), mode, None).expect("the event can be encoded");
        assert_eq!(TraceContext::from_headers(without.headers.iter()), None);
    }
}

#[test]
fn attributes_that_no_reader_could_take_back_are_not_written() {
    let spoil: [(&str, Corrupt); 7] = [
        ("id", |attributes| attributes.id.clear()),
        ("source", |attributes| attributes.source.clear()),
        ("type", |attributes| attributes.ty.clear()),
        ("\"\"", |attributes| extend(attributes, "")),
        ("Upper", |attributes| extend(attributes, "Upper")),
        ("data", |attributes| extend(attributes, "data")),
        ("subject", |attributes| extend(attributes, "subject")),
    ];
    for (named, spoil) in spoil {
        for mode in [ContentMode::Binary, ContentMode::Structured] {
            let mut event = full_event();
            spoil(&mut event.attributes);
            let error = encode(&event, mode, None).expect_err(named).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}

#[test]
fn an_untyped_event_keeps_its_payload_byte_for_byte() {
    let payload = r#"{"z":1.10,"a":340282366920938463463374607431768211456,"b":[1e3, -0.0]}"#;
    let event = JsonEvent {
        attributes: full_event().attributes,
        topic: Payload::TOPIC.to_owned(),
        key: None,
        data: RawValue::from_string(payload.to_owned()).expect("is JSON"),
    };
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let record = encode_json(&event, mode, None).expect("the event can be encoded");
        let envelope = decode(record.headers.iter(), record.value.as_deref()).expect("decodes");
        assert_eq!(envelope.data.as_deref(), Some(payload.as_bytes()));
    }
}

type Corrupt = fn(&mut Attributes);

fn extend(attributes: &mut Attributes, name: &str) {
    attributes
        .extensions
        .insert(name.to_owned(), "value".to_owned());
}

#[test]
fn an_untyped_event_is_written_like_a_typed_one() {
    let event = full_event();
    let untyped = JsonEvent {
        attributes: event.attributes.clone(),
        topic: Payload::TOPIC.to_owned(),
        key: Some(Bytes::from(event.data.key())),
        data: RawValue::from_string(
            r#"{"name": "nüsse", "count": 18446744073709551615}"#.to_owned(),
        )
        .expect("is JSON"),
    };
    let trace = TraceContext::root();
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let typed = encode(&event, mode, Some(&trace)).expect("the event can be encoded");
        let record = encode_json(&untyped, mode, Some(&trace)).expect("the event can be encoded");
        assert_eq!((&record.topic, &record.key), (&typed.topic, &typed.key));
        assert_eq!(record.headers, typed.headers);
        let value = |record: &OutgoingRecord| -> serde_json::Value {
            let bytes = record.value.as_deref().expect("has a value");
            serde_json::from_slice(bytes).expect("the bytes are JSON")
        };
        assert_eq!(value(&record), value(&typed));
    }
}
