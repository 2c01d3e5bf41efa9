//! Structured mode: one JSON object.

use super::binary::binary_with;
use super::*;
use serde_json::{Value, json};

#[test]
fn structured_mode_puts_all_into_one_json_object() {
    let event = full_event();
    let record = encode(&event, ContentMode::Structured, None).expect("the event can be encoded");

    let content_type = b"application/cloudevents+json; charset=UTF-8";
    assert_eq!(
        record.headers,
        headers(&[("content-type", Some(content_type))])
    );
    let value: Value =
        serde_json::from_slice(&record.value.expect("has a value")).expect("the bytes are JSON");
    let expected = json!({
        "specversion": "1.0",
        "id": event.attributes.id,
        "source": "/test/counter",
        "type": "test.counted.v1",
        "subject": "nüsse",
        "time": event.attributes.time.expect("set by new").to_string(),
        "datacontenttype": "application/json",
        "dataschema": "urn:test:counted:1",
        "partitionkey": "a b",
        "data": {"name": "nüsse", "count": u64::MAX},
    });
    assert_eq!(value, expected);
    assert_eq!(record.key.as_deref(), Some("nüsse".as_bytes()));
}

pub(super) fn structured<'a>(
    content_type: &str,
    value: &'a str,
) -> Result<Envelope<'a>, DecodeError> {
    let headers = headers(&[("content-type", Some(content_type.as_bytes()))]);
    decode(headers.iter(), Some(value.as_bytes()))
}

pub(super) const STRUCTURED: &str = "application/cloudevents+json";

#[test]
fn the_content_type_tells_the_modes_apart() {
    let value = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t.v1"}"#;
    for content_type in [
        STRUCTURED,
        "application/cloudevents+json; charset=utf-8",
        "Application/CloudEvents+JSON;charset=UTF-8",
        "  application/cloudevents+json ; x=y",
    ] {
        let envelope = structured(content_type, value).expect(content_type);
        assert_eq!(envelope.attributes, Attributes::new("1", "/s", "t.v1"));
        assert_eq!(envelope.data, None);
    }
    for content_type in [
        "application/cloudevents+avro",
        "application/cloudevents-batch+json",
        "application/cloudevents",
    ] {
        let decoded = structured(content_type, value);
        assert_eq!(decoded, Err(DecodeError::NotAnEvent), "{content_type}");
    }
    // None of these marks an event: its members make it one, and in no other format.
    for content_type in ["application/json", "x-application/cloudevents+json", ""] {
        assert!(structured(content_type, value).is_ok(), "{content_type}");
        let decoded = structured(content_type, r#"{"id":"1","source":"/s","type":"t.v1"}"#);
        assert_eq!(decoded, Err(DecodeError::NotAnEvent), "{content_type}");
    }
    let mut avro = binary_with(&[]);
    avro.push("content-type", Some(b"application/cloudevents+avro"));
    assert_eq!(decode(avro.iter(), None), Err(DecodeError::NotAnEvent));
}

#[test]
fn a_structured_events_payload_is_passed_on_unchanged() {
    let rows: [(&str, Option<&[u8]>); 15] = [
        (
            r#""data":{"n": 12345678901234567890123.10}"#,
            Some(br#"{"n": 12345678901234567890123.10}"#),
        ),
        (r#""data":"text""#, Some(br#""text""#)),
        (r#""data":null"#, Some(b"null")),
        (
            r#""datacontenttype":"application/json","data":"text""#,
            Some(br#""text""#),
        ),
        (
            r#""datacontenttype":"application/vnd.x+json; v=1","data":"text""#,
            Some(br#""text""#),
        ),
        (
            r#""datacontenttype":"text/plain","data":"te\u0078t""#,
            Some(b"text"),
        ),
        (
            r#""datacontenttype":"application/xml","data":{"a":1}"#,
            Some(br#"{"a":1}"#),
        ),
        (r#""data_base64":"/wA=""#, Some(b"\xff\x00")),
        (r#""data":1,"data":2"#, Some(b"2")),
        (r#""comment":"no data""#, None),
        (r#""data_base64":"""#, Some(b"")),
        (r#""data":{"a":1},"data_base64":null"#, Some(br#"{"a":1}"#)),
        (r#""data":null,"data_base64":"/wA=""#, Some(b"\xff\x00")),
        (r#""data":null,"data_base64":null"#, Some(b"null")),
        (r#""data_base64":null"#, None),
    ];
    for (members, expected) in rows {
        let value =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t.v1",{members}}}"#);
        let envelope = structured(STRUCTURED, &value).expect(members);
        assert_eq!(envelope.data.as_deref(), expected, "{members}");
    }
}

#[test]
fn members_of_a_structured_event_are_text_flags_or_integers() {
    let value = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t.v1","flag":true,"number":-7,
        "subject":null,"Other":{"x":1},"with_underscore":[1],"time":"2026-11-21T09:00:00+01:00"}"#;
    let attributes = structured(STRUCTURED, value).expect("an event").attributes;
    let mut expected = Attributes::new("1", "/s", "t.v1");
    expected.time = Some("2026-11-21T08:00:00Z".parse().expect("a time"));
    expected.extensions = [("flag", "true"), ("number", "-7")]
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .into();
    assert_eq!(attributes, expected);
}

#[test]
fn an_optional_member_never_costs_a_structured_event() {
    let check = |member: &str, expected: fn(&mut Attributes)| {
        let value =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t.v1",{member}}}"#);
        let envelope = structured(STRUCTURED, &value).expect(member);
        let mut attributes = Attributes::new("1", "/s", "t.v1");
        expected(&mut attributes);
        assert_eq!(envelope.attributes, attributes, "{member}");
    };
    check(r#""ext":1.50"#, |a| extend_with(a, "1.50"));
    check(r#""ext":12345678901234567890123"#, |a| {
        extend_with(a, "12345678901234567890123")
    });
    check(r#""ext":{"a":[1, 2]}"#, |a| {
        extend_with(a, r#"{"a":[1, 2]}"#)
    });
    check(r#""ext":"\ud800""#, |a| extend_with(a, r#""\ud800""#));
    check(r#""subject":7"#, |a| a.subject = Some("7".to_owned()));
    check(r#""datacontenttype":["x"]"#, |a| {
        a.datacontenttype = Some(r#"["x"]"#.to_owned())
    });
    check(r#""time":"tomorrow""#, |a| {
        a.time_text = Some("tomorrow".to_owned())
    });
    check(r#""time":1700000000"#, |a| {
        a.time_text = Some("1700000000".to_owned())
    });
    check(r#""time":"","dataschema":null"#, |_| {});
}

fn extend_with(attributes: &mut Attributes, value: &str) {
    attributes
        .extensions
        .insert("ext".to_owned(), value.to_owned());
}

#[test]
fn errors_of_malformed_structured_events_show_no_content() {
    let rows = [
        ("", "not JSON (line 1, column 0)"),
        (r#"{"id":"secret""#, "not JSON"),
        ("{} secret", "not JSON"),
        ("[\"secret\"]", "not a JSON object"),
        ("\"secret\"", "not a JSON object"),
        ("{}", "specversion is not valid: missing"),
        (
            r#"{"specversion":"1.1"}"#,
            "specversion is not valid: only 1.0",
        ),
        (
            r#"{"specversion":1.0}"#,
            "specversion is not valid: not a string",
        ),
        (r#"{"specversion":"1.0","id":""}"#, "id is not valid: empty"),
        (
            r#"{"specversion":"1.0","id":null}"#,
            "id is not valid: missing",
        ),
        (
            r#"{"specversion":"1.0","id":["secret"]}"#,
            "id is not valid: not a string",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":"secret!"}"#,
            "Base64",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data_base64":1}"#,
            "Base64",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"data_base64":""}"#,
            "both",
        ),
    ];
    for (value, expected) in rows {
        let error = structured(STRUCTURED, value).expect_err(value);
        assert!(error.to_string().contains(expected), "{value}: {error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
    let headers = headers(&[("content-type", Some(STRUCTURED.as_bytes()))]);
    let error = decode(headers.iter(), None).expect_err("no value");
    assert!(error.to_string().contains("no value"), "{error}");
    assert!(decode(headers.iter(), Some(b"\xff{}")).is_err());
}

#[test]
fn deeply_nested_input_is_no_danger() {
    let deep = "[".repeat(1_000_000);
    let open = format!(r#"{{"data":{deep}"#);
    assert!(structured(STRUCTURED, &open).is_err());
    let attribute = format!(r#"{{"ext":{deep}{}}}"#, "]".repeat(1_000_000));
    assert!(structured(STRUCTURED, &attribute).is_err());
}
