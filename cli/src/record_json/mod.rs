//! A record as one JSON object, with the names of kcat -J, and `ce` for the CloudEvents attributes.
//! Pure.
//!
//! Bytes that are not UTF-8 are in `key_hex` and `payload_hex`, beside a null, and in headers as
//! `{"hex": "…"}`. Nothing is lost, so the record can be read back.

mod read;

pub(crate) use read::read;

use evenkeel::event::{Attributes, decode};
use evenkeel::kafka::reader::{LogRecord, TimestampKind};
use evenkeel::recovery::DeadLetter;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The object of a record. Its members keep this order.
#[derive(Serialize)]
pub(crate) struct Envelope<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// Kind of the timestamp, by kcat's names.
    tstype: &'static str,
    /// Timestamp in milliseconds since the epoch. Null without one.
    ts: Option<i64>,
    /// Names and values in turn, as kcat writes them.
    headers: Value,
    /// The key. Null without one, and if it is not text.
    key: Option<&'a str>,
    /// The key in hexadecimal, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    /// The value. Null for a tombstone, and if it is not text.
    payload: Option<&'a str>,
    /// The value in hexadecimal, if it is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    /// The CloudEvents attributes. Absent if the record is no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    ce: Option<Value>,
    /// The failure, as parsed from the headers of a dead letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'a DeadLetter>,
}

/// The object of a record. For a dead letter, with the failure from its headers.
pub(crate) fn of<'a>(record: &'a LogRecord, failure: Option<&'a DeadLetter>) -> Envelope<'a> {
    let (key, key_hex) = text_or_hex(record.key.as_deref());
    let (payload, payload_hex) = text_or_hex(record.value.as_deref());
    let event = decode(record.headers.iter(), record.value.as_deref());
    Envelope {
        topic: &record.topic,
        partition: record.partition,
        offset: record.offset,
        tstype: tstype(record.timestamp_kind),
        ts: record.timestamp_ms,
        headers: headers(record),
        key,
        key_hex,
        payload,
        payload_hex,
        ce: event.ok().map(|event| attributes(event.attributes)),
        failure,
    }
}

/// The bytes as text, or else as hexadecimal digits.
fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(std::str::from_utf8) {
        Some(Ok(text)) => (Some(text), None),
        Some(Err(_)) => (None, bytes.map(hex)),
        None => (None, None),
    }
}

/// kcat's name of a timestamp's kind.
fn tstype(kind: TimestampKind) -> &'static str {
    match kind {
        TimestampKind::Absent => "unknown",
        TimestampKind::Create => "create",
        TimestampKind::LogAppend => "logappend",
    }
}

/// Names and values alternately, as kcat writes them: an object could not contain a name twice.
fn headers(record: &LogRecord) -> Value {
    record
        .headers
        .iter()
        .flat_map(|(name, value)| {
            [
                text_or_object(name),
                value.map_or(Value::Null, text_or_object),
            ]
        })
        .collect()
}

/// Bytes in a header: a text, or `{"hex": "…"}`.
fn text_or_object(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex(bytes) }),
    }
}

/// The CloudEvents attributes by name. A time that is no instant keeps its text.
fn attributes(attributes: Attributes) -> Value {
    let mut object = Map::new();
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), Value::String(value));
        }
    };
    set("specversion", Some("1.0".to_owned()));
    set("id", Some(attributes.id));
    set("source", Some(attributes.source));
    set("type", Some(attributes.ty));
    set("subject", attributes.subject);
    let time = attributes.time.map(|time| time.to_string());
    set("time", time.or(attributes.time_text));
    set("datacontenttype", attributes.datacontenttype);
    set("dataschema", attributes.dataschema);
    for (name, value) in attributes.extensions {
        set(&name, Some(value));
    }
    Value::Object(object)
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;

    fn record() -> LogRecord {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_specversion", Some("1.0")),
            ("ce_id", Some("7")),
            ("ce_source", Some("/s")),
            ("ce_type", Some("t.v1")),
            ("trace", None),
        ] {
            headers.push(name, value.map(str::as_bytes));
        }
        LogRecord {
            topic: "t".into(),
            partition: 1,
            offset: 2,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(3),
            key: Some(b"k".to_vec()),
            value: Some(b"{}".to_vec()),
            headers,
        }
    }

    #[test]
    fn an_event_has_kcats_members_in_order_and_its_attributes() {
        let expected = concat!(
            r#"{"topic":"t","partition":1,"offset":2,"tstype":"create","ts":3,"#,
            r#""headers":["ce_specversion","1.0","ce_id","7","ce_source","/s","ce_type","t.v1","trace",null],"#,
            r#""key":"k","payload":"{}","ce":{"id":"7","source":"/s","specversion":"1.0","type":"t.v1"}}"#,
        );
        assert_eq!(
            serde_json::to_string(&of(&record(), None)).unwrap(),
            expected
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_kept_as_digits() {
        let mut raw = record();
        raw.headers = Headers::new();
        raw.headers.push("offset", Some(&[0, 0xff]));
        (raw.key, raw.value) = (None, Some(vec![0xff, 0x0a]));
        let object = serde_json::to_value(of(&raw, None)).unwrap();
        assert_eq!(object["key"], Value::Null);
        assert_eq!(object["payload"], Value::Null);
        assert_eq!(object["payload_hex"], "ff0a");
        assert_eq!(object["headers"], json!(["offset", {"hex": "00ff"}]));
        assert_eq!(object.get("key_hex"), None);
        assert_eq!(object.get("ce"), None);
    }
}
