//! Binary mode: `ce_*` headers.

use super::*;

#[test]
fn binary_mode_writes_attributes_to_headers_and_payload_to_value() {
    let event = full_event();
    let record = encode(&event, ContentMode::Binary, None).expect("the event can be encoded");

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
fn a_payload_that_is_a_cloudevent_requires_structured_mode() {
    let mut event = full_event();
    event.attributes.datacontenttype = Some("Application/CloudEvents+json".to_owned());
    let error = encode(&event, ContentMode::Binary, None).expect_err("ambiguous");
    assert!(error.to_string().contains("structured mode"), "{error}");
    let record = encode(&event, ContentMode::Structured, None).expect("the event can be encoded");
    let envelope = decode(record.headers.iter(), record.value.as_deref()).expect("an event");
    assert_eq!(envelope.attributes, event.attributes);
}

/// The headers of a minimal event, with others after them: the last one of a name counts.
pub(super) fn binary_with(others: &[(&str, Option<&[u8]>)]) -> Headers {
    let mut all: Vec<(&str, Option<&[u8]>)> = vec![
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(b"1")),
        ("ce_source", Some(b"/s")),
        ("ce_type", Some(b"t.v1")),
    ];
    all.extend(others);
    headers(&all)
}

#[test]
fn errors_of_malformed_binary_events_name_the_attribute() {
    let rows: [(&str, &[u8], &str, &str); 9] = [
        ("ce_specversion", b"0.3", "specversion", "only 1.0"),
        ("ce_specversion", b"1.0 ", "specversion", "only 1.0"),
        ("ce_specversion", b"", "specversion", "empty"),
        ("ce_id", b"", "id", "empty"),
        ("ce_id", b"\xff", "id", "UTF-8"),
        ("ce_source", b"", "source", "empty"),
        ("ce_type", b"\xc3\x28", "type", "UTF-8"),
        ("ce_type", b"", "type", "empty"),
        ("ce_specversion", b"\"0.3\"", "specversion", "only 1.0"),
    ];
    for (header, value, attribute, expected) in rows {
        let headers = binary_with(&[(header, Some(value))]);
        let error = decode(headers.iter(), Some(b"{}")).expect_err(header);
        let DecodeError::Attribute { name, reason } = &error else {
            panic!("{header}: {error}");
        };
        assert_eq!(name, attribute);
        assert!(reason.contains(expected), "{error}");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}

#[test]
fn an_optional_header_never_costs_a_binary_event() {
    let check = |header: &str, value: &[u8], expected: fn(&mut Attributes)| {
        let headers = binary_with(&[(header, Some(value))]);
        let envelope = decode(headers.iter(), Some(b"{}")).expect(header);
        let mut attributes = Attributes::new("1", "/s", "t.v1");
        expected(&mut attributes);
        assert_eq!(envelope.attributes, attributes, "{header}");
    };
    check("ce_subject", b"\xffx", |a| {
        a.subject = Some("\u{fffd}x".to_owned())
    });
    check("ce_time", b"\xff", |a| {
        a.time_text = Some("\u{fffd}".to_owned())
    });
    check("ce_time", b"", |_| {});
    check("ce_time", b"9999-12-31T23:59:59.9999999Z", |a| {
        a.time_text = Some("9999-12-31T23:59:59.9999999Z".to_owned())
    });
    check("ce_dataschema", b"\xff", |a| {
        a.dataschema = Some("\u{fffd}".to_owned())
    });
    check("ce_comment", b"\xff", |a| {
        a.extensions
            .insert("comment".to_owned(), "\u{fffd}".to_owned());
    });
    check("content-type", b"\xff", |a| {
        a.datacontenttype = Some("\u{fffd}".to_owned())
    });
}

#[test]
fn an_unrepresentable_time_is_written_as_it_was_read() {
    let text = "9999-12-31T23:59:59.9999999Z";
    let headers = binary_with(&[("ce_time", Some(text.as_bytes()))]);
    let read = decode(headers.iter(), Some(b"{}")).expect("an event");
    let mut event = full_event();
    event.attributes = read.attributes.clone();
    for mode in [ContentMode::Binary, ContentMode::Structured] {
        let record = encode(&event, mode, None).expect("the event can be encoded");
        let again = decode(record.headers.iter(), record.value.as_deref()).expect("an event");
        assert_eq!(again.attributes, read.attributes);
    }
}

#[test]
fn attributes_in_json_quotes_are_read_without_them() {
    let quoted = headers(&[
        ("ce_specversion", Some(br#""1.0""#)),
        ("ce_id", Some(br#""a\"1""#)),
        ("ce_source", Some(br#""/s""#)),
        ("ce_type", Some(br#""t.v1""#)),
        ("ce_time", Some(br#""2026-11-21T08:00:00Z""#)),
        ("ce_ext", Some(b"plain")),
        ("content-type", Some(br#""text/plain""#)),
    ]);
    let read = decode(quoted.iter(), Some(b"{}")).expect("an event");
    let mut expected = Attributes::new("a\"1", "/s", "t.v1");
    expected.time = Some("2026-11-21T08:00:00Z".parse().expect("a time"));
    expected.datacontenttype = Some("text/plain".to_owned());
    expected
        .extensions
        .insert("ext".to_owned(), "plain".to_owned());
    assert_eq!(read.attributes, expected);
    // Without quotes around the version, quotes of another value are part of it.
    let headers = binary_with(&[("ce_id", Some(br#""1""#))]);
    let read = decode(headers.iter(), None).expect("an event");
    assert_eq!(read.attributes.id, r#""1""#);
    let structured = headers_of_content_type(br#""application/cloudevents+json""#);
    let value = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t.v1"}"#;
    let read = decode(structured.iter(), Some(value)).expect("an event");
    assert_eq!(read.attributes, Attributes::new("1", "/s", "t.v1"));
}

fn headers_of_content_type(value: &[u8]) -> Headers {
    headers(&[("content-type", Some(value))])
}

#[test]
fn a_record_without_all_mandatory_attributes_is_raw() {
    for missing in ["ce_specversion", "ce_id", "ce_source", "ce_type"] {
        let headers = binary_with(&[(missing, None)]);
        let decoded = decode(headers.iter(), Some(b"{}"));
        assert_eq!(decoded, Err(DecodeError::NotAnEvent), "{missing}");
    }
    let cased = headers(&[
        ("CE_SPECVERSION", Some(b"1.0")),
        ("Ce_Id", Some(b"1")),
        ("\u{fffd}", Some(b"\xff")),
    ]);
    assert_eq!(decode(cased.iter(), None), Err(DecodeError::NotAnEvent));
    assert_eq!(
        decode(Headers::new().iter(), None),
        Err(DecodeError::NotAnEvent)
    );
}

#[test]
fn the_last_header_of_a_name_counts() {
    let headers = binary_with(&[
        ("ce_id", Some(b"\xff")),
        ("ce_id", Some(b"2")),
        ("ce_subject", Some(b"gone")),
        ("ce_subject", None),
        ("ce_ext", Some(b"gone")),
        ("ce_ext", None),
        ("content-type", Some(b"application/cloudevents+json")),
        ("content-type", Some(b"text/plain")),
    ]);
    let envelope = decode(headers.iter(), Some(b"\xff\x00")).expect("an event");
    let mut expected = Attributes::new("2", "/s", "t.v1");
    expected.datacontenttype = Some("text/plain".to_owned());
    assert_eq!(envelope.attributes, expected);
    assert_eq!(envelope.data.as_deref(), Some(&b"\xff\x00"[..]));
}

#[test]
fn headers_that_cannot_be_attributes_are_left_alone() {
    let headers = binary_with(&[
        ("ce_", Some(b"\xff")),
        ("ce_Comment", Some(b"\xff")),
        ("ce_with-dash", Some(b"\xff")),
        ("ce_data", Some(b"\xff")),
        ("ce_datacontenttype", Some(b"\xff")),
        ("other", Some(b"\xff")),
    ]);
    let envelope = decode(headers.iter(), None).expect("an event");
    assert_eq!(envelope.attributes, Attributes::new("1", "/s", "t.v1"));
    assert_eq!(envelope.data, None);
}
