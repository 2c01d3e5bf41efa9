//! Reads an envelope back, possibly edited by a human between an export and a replay.
//!
//! It reads `topic`, `partition`, `offset`, `headers`, `key` or `key_hex`, `payload` or
//! `payload_hex`. It ignores `ce` and `failure`, which are for people; their content follows from
//! the headers.

use evenkeel::event::Headers;
use evenkeel::kafka::reader::{LogRecord, TimestampKind};
use serde_json::{Map, Value};

type Object = Map<String, Value>;

/// The record of one line, or its error, which names the field. Unknown fields are ignored.
pub(crate) fn read(line: &[u8]) -> Result<LogRecord, String> {
    let object: Object =
        serde_json::from_slice(line).map_err(|error| format!("not a JSON object: {error}"))?;
    let topic = object.get("topic").and_then(Value::as_str);
    let partition = object.get("partition").and_then(Value::as_i64);
    let offset = object.get("offset").and_then(Value::as_i64);
    Ok(LogRecord {
        topic: topic.ok_or("no text in topic")?.into(),
        partition: partition
            .and_then(|number| i32::try_from(number).ok())
            .filter(|number| *number >= 0)
            .ok_or("no number in partition")?,
        offset: offset
            .filter(|number| *number >= 0)
            .ok_or("no number in offset")?,
        timestamp_kind: TimestampKind::Absent,
        timestamp_ms: object.get("ts").and_then(Value::as_i64),
        key: bytes(&object, "key")?,
        value: bytes(&object, "payload")?,
        headers: headers(object.get("headers"))?,
    })
}

/// The bytes of `name` or `name_hex`. One of them must exist: otherwise a forgotten payload would
/// become a tombstone.
fn bytes(object: &Object, name: &str) -> Result<Option<Vec<u8>>, String> {
    let hex_name = format!("{name}_hex");
    match (object.get(name), object.get(&hex_name)) {
        (None, None) => Err(format!(
            "neither {name} nor {hex_name}; write null for none"
        )),
        (Some(Value::String(_)), Some(_)) => Err(format!("both {name} and {hex_name}")),
        (Some(Value::String(text)), None) => Ok(Some(text.clone().into_bytes())),
        (None | Some(Value::Null), Some(Value::String(digits))) => {
            let bytes =
                unhex(digits).ok_or_else(|| format!("no hexadecimal digits in {hex_name}"))?;
            Ok(Some(bytes))
        }
        (Some(Value::Null), None) => Ok(None),
        (_, Some(_)) => Err(format!("{hex_name} must be a text of hexadecimal digits")),
        (Some(_), None) => Err(format!(
            "{name} must be a text, even if it contains JSON, or null"
        )),
    }
}

/// Names and values alternately, as [`of`](super::of) writes them. A value may be null, a name not.
fn headers(value: Option<&Value>) -> Result<Headers, String> {
    let wrong =
        "headers must be a list of names and values in turn, each a text or {\"hex\": \"…\"}";
    let items: &[Value] = match value {
        Some(Value::Array(items)) => items,
        _ => return Err(wrong.to_owned()),
    };
    let (pairs, []) = items.as_chunks::<2>() else {
        return Err(wrong.to_owned());
    };
    let mut headers = Headers::new();
    for [name, value] in pairs {
        let name = text_or_hex(name).ok_or(wrong)?;
        match value {
            Value::Null => headers.push_bytes(&name, None),
            value => headers.push_bytes(&name, Some(&text_or_hex(value).ok_or(wrong)?)),
        }
    }
    Ok(headers)
}

/// The bytes of a header's name or value.
fn text_or_hex(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        value => unhex(value.get("hex")?.as_str()?),
    }
}

/// The bytes of hexadecimal digits, in either case. `None` for an odd number of digits or another
/// character.
fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record_json::of;

    fn round_trip(key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers) {
        let record = LogRecord {
            topic: "dlq.g.t".into(),
            partition: 1,
            offset: 2,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: Some(3),
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers,
        };
        let line = serde_json::to_vec(&of(&record, None)).unwrap();
        assert_eq!(read(&line).unwrap(), record);
    }

    #[test]
    fn a_record_round_trips_byte_for_byte() {
        round_trip(None, None, Headers::new());
        round_trip(Some(b""), Some(b""), Headers::new());
        round_trip(Some(b"k"), Some(b"{\"a\": 1}"), Headers::new());
        let mut headers = Headers::new();
        headers.push("text", Some("grün".as_bytes()));
        headers.push("none", None);
        headers.push("text", Some(b""));
        headers.push("spring", Some(&[0, 0, 0, 3]));
        headers.push_bytes(b"\xff", Some(&[0xc3, 0x28]));
        round_trip(Some(&[0xff, 0]), Some(&[0xc3, 0x28]), headers);
    }

    #[test]
    fn incomplete_or_contradictory_lines_are_refused_with_the_reason() {
        let whole = r#"{"topic":"t","partition":0,"offset":1,"headers":["a","b"],"key":null,"payload":"x"}"#;
        read(whole.as_bytes()).unwrap();
        let check = |from: &str, to: &str, expected: &str| {
            let line = whole.replace(from, to);
            let reason = read(line.as_bytes()).unwrap_err();
            assert!(reason.contains(expected), "{line}: {reason}");
        };
        check("{", "", "JSON");
        check("\"t\"", "1", "topic");
        check("\"partition\":0", "\"partition\":-1", "partition");
        check("\"partition\":0", "\"partition\":2147483648", "partition");
        check("\"offset\":1", "\"offset\":1.5", "offset");
        check(",\"payload\":\"x\"", "", "neither payload");
        check("\"x\"", "{\"order\":1}", "payload must be a text");
        check("\"x\"", "\"x\",\"payload_hex\":\"00\"", "both payload");
        check("\"payload\":\"x\"", "\"payload_hex\":\"0\"", "payload_hex");
        check("\"payload\":\"x\"", "\"payload_hex\":7", "payload_hex");
        check("[\"a\",\"b\"]", "[\"a\"]", "headers");
        check("[\"a\",\"b\"]", "{}", "headers");
        check("[\"a\",\"b\"]", "[null,\"b\"]", "headers");
        check("[\"a\",\"b\"]", "[\"a\",{\"hex\":\"xyz\"}]", "headers");
    }
}
