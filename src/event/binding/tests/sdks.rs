//! Records of other SDKs, byte for byte as they wrote them. `tests/fixtures/cloudevents/` has the
//! programs beside their output.

use super::*;
use crate::event::binding::base64;
use jiff::Timestamp;
use serde_json::Value;

const SDKS: [(&str, &str); 6] = [
    (
        "java",
        include_str!("../../../../tests/fixtures/cloudevents/java.json"),
    ),
    (
        "go",
        include_str!("../../../../tests/fixtures/cloudevents/go.json"),
    ),
    (
        "javascript",
        include_str!("../../../../tests/fixtures/cloudevents/javascript.json"),
    ),
    (
        "python",
        include_str!("../../../../tests/fixtures/cloudevents/python.json"),
    ),
    (
        "python-1",
        include_str!("../../../../tests/fixtures/cloudevents/python-1.json"),
    ),
    (
        "dotnet",
        include_str!("../../../../tests/fixtures/cloudevents/dotnet.json"),
    ),
];

/// A record in a fixture.
struct FixtureRecord {
    event: String,
    mode: String,
    headers: Headers,
    value: Option<Vec<u8>>,
}

fn written(fixture: &str) -> Vec<FixtureRecord> {
    let fixture: Value = serde_json::from_str(fixture).expect("a fixture");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let bytes = |value: &Value| Some(base64::decode(value.as_str()?.as_bytes()).expect("base64"));
    let record = |record: &Value| FixtureRecord {
        event: text(&record["event"]),
        mode: text(&record["mode"]),
        headers: record["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .map(|header| (text(&header[0]).into_bytes(), bytes(&header[1])))
            .collect::<Vec<_>>()
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_deref()))
            .collect(),
        value: bytes(&record["value"]),
    };
    let records = fixture["records"].as_array().expect("records");
    records.iter().map(record).collect()
}

/// The event that each SDK was given under this name.
fn fixture_event(event: &str) -> (Attributes, Option<&'static [u8]>) {
    let mut attributes = Attributes::new(
        "A234-1234-1234",
        "https://example.com/orders",
        "com.example.someevent",
    );
    let set = |value: &str| Some(value.to_owned());
    let data: Option<&'static [u8]> = match event {
        "json" => {
            attributes.subject = set("nüsse 50%");
            attributes.time = "2026-05-01T12:30:00.123456789+02:00".parse().ok();
            attributes.dataschema = set("https://example.com/schema");
            attributes.datacontenttype = set("application/json");
            attributes.extensions = [
                ("partitionkey", "o-1"),
                ("comexampleextension1", "value"),
                ("comexampleothervalue", "5"),
                ("flag", "true"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
            Some(r#"{"order":"o-1","total":12.5,"note":"größe"}"#.as_bytes())
        }
        "json-string" => {
            attributes.datacontenttype = set("application/json");
            Some(br#""hello""#)
        }
        "text" => {
            attributes.datacontenttype = set("text/plain");
            Some("plain text, ü".as_bytes())
        }
        "bytes" => {
            attributes.datacontenttype = set("application/octet-stream");
            Some(&[0, 0xff, 0x80])
        }
        "minimal" => None,
        other => panic!("no event {other}"),
    };
    (attributes, data)
}

/// The same, with the changes that this SDK makes.
fn expected_from(sdk: &str, record: &FixtureRecord) -> (Attributes, Option<Vec<u8>>) {
    let (mut attributes, data) = fixture_event(&record.event);
    let mut data = data.map(<[u8]>::to_vec);
    let is_binary = record.mode == "binary";
    let is_python = sdk.starts_with("python");
    if (is_python || sdk == "javascript") && record.event != "json" {
        // They set a time in every event.
        attributes.time = "2026-05-01T10:30:00Z".parse().ok();
    }
    match (sdk, record.event.as_str(), is_binary) {
        // They write a JSON string as plain text, which is not JSON.
        ("javascript" | "python", "json-string", true) => data = Some(b"hello".to_vec()),
        ("python", "minimal", true) => data = Some(Vec::new()),
        ("python-1", "minimal", false) => data = Some(b"null".to_vec()),
        ("python", "json", true) => {
            attributes
                .extensions
                .insert("flag".to_owned(), "True".to_owned());
        }
        // It moves the partition key from the attributes to the record.
        ("python-1", "json", true) => {
            attributes.extensions.remove("partitionkey");
        }
        _ => {}
    }
    (attributes, data)
}

#[test]
fn events_of_every_sdk_are_read() {
    let mut read = 0;
    for (sdk, fixture) in SDKS.iter().filter(|(sdk, _)| *sdk != "dotnet") {
        for record in written(fixture) {
            let name = format!("{sdk} {} {}", record.event, record.mode);
            let envelope = decode(record.headers.iter(), record.value.as_deref());
            let mut envelope = envelope.unwrap_or_else(|error| panic!("{name}: {error}"));
            let (expected, data) = expected_from(sdk, &record);
            // Some cut a time to milli- or microseconds.
            let cut = |time: Option<Timestamp>| time.map(|time| time.as_millisecond());
            assert_eq!(cut(envelope.attributes.time), cut(expected.time), "{name}");
            envelope.attributes.time = expected.time;
            assert_eq!(envelope.attributes, expected, "{name}");
            let found = envelope.data.as_deref();
            if record.event == "json" {
                let parse = |data: Option<&[u8]>| -> Value {
                    serde_json::from_slice(data.expect("data")).expect("the bytes are JSON")
                };
                assert_eq!(parse(found), parse(data.as_deref()), "{name}");
            } else {
                assert_eq!(found, data.as_deref(), "{name}");
            }
            read += 1;
        }
    }
    assert_eq!(read, 49);
}

#[test]
fn dotnet_sdk_events_with_doubled_attributes_are_read() {
    for record in written(SDKS[5].1) {
        let is_structured = record.mode == "structured";
        let envelope = decode(record.headers.iter(), record.value.as_deref()).expect("an event");
        let source = "https://github.com/cloudevents/spec/pull";
        let mut expected = Attributes::new(
            "A234-1234-1234",
            format!("{source}{}", if is_structured { "" } else { "/123" }),
            "com.github.pull.create",
        );
        expected.subject = is_structured.then(|| "123".to_owned());
        expected.time = "2018-04-05T17:31:00Z".parse().ok();
        expected.extensions = [("comexampleextension1".to_owned(), "value".to_owned())].into();
        let is_tombstone = record.event == "tombstone";
        expected.datacontenttype = (!is_tombstone).then(|| "text/xml".to_owned());
        assert_eq!(envelope.attributes, expected);
        let data: &[u8] = if is_tombstone {
            b""
        } else {
            br#"<much wow="xml"/>"#
        };
        assert_eq!(envelope.data.as_deref(), Some(data));
    }
}

/// A structured event without a header that marks it, as of the Python SDK before 2.0, is an event
/// for a reader that asks for its type.
#[test]
fn an_unmarked_event_is_raw_unless_its_type_is_requested() {
    let value = br#" {"specversion":"1.0","id":"1","source":"/s","type":"t","data":{}}"#;
    let none = Headers::new();
    let read = |value: &'static [u8], asks: bool| match decode_for(none.iter(), Some(value), |ty| {
        (asks && ty == "t").then_some(())
    }) {
        Ok(Decoded::Asked((), envelope)) => Some(envelope.attributes.id),
        Ok(Decoded::Other { .. }) => panic!("neither event nor raw"),
        Err(error) => {
            assert_eq!(error, DecodeError::NotAnEvent);
            None
        }
    };
    assert_eq!(read(value, true).as_deref(), Some("1"));
    assert_eq!(read(value, false), None);
    for raw in [
        &br#"{"specversion":"1.0","id":"1","source":"/s"}"#[..],
        br#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#,
        br#"{"specversion":"1.0","id":"","source":"/s","type":"t"}"#,
        br#"{"specversion":"1.0","id":"1","source":"/s","type":"t""#,
        br#"["specversion"]"#,
        br#"{"id":"1","source":"/s","type":"t"}"#,
    ] {
        assert_eq!(read(raw, true), None, "{}", String::from_utf8_lossy(raw));
    }
}

/// The form of our events: each of the SDKs was seen to read the fixture
/// (docs/src/service/cloudevents.md).
#[test]
fn events_of_ours_are_those_that_the_sdks_read() {
    let (attributes, data) = fixture_event("json");
    let data = String::from_utf8(data.expect("data").to_vec()).expect("the bytes are UTF-8");
    let event = JsonEvent {
        attributes,
        topic: "orders".to_owned(),
        key: Some(Bytes::from_static(b"o-1")),
        data: RawValue::from_string(data).expect("JSON"),
    };
    let fixture = include_str!("../../../../tests/fixtures/cloudevents/evenkeel.json");
    let mut expected = written(fixture).into_iter();
    for (mode, name) in [
        (ContentMode::Binary, "binary"),
        (ContentMode::Structured, "structured"),
    ] {
        let record = encode_json(&event, mode, None).expect("the event can be encoded");
        let written = expected.next().expect("a record");
        assert_eq!(written.mode, name);
        assert_eq!(written.headers, record.headers, "{name}");
        let text =
            |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(
            text(written.value.as_deref()),
            text(record.value.as_deref()),
            "{name}"
        );
    }
    assert!(expected.next().is_none());
}
