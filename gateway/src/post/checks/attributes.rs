//! The check and completion of an event's attributes. Pure: source and time are arguments.
//!
//! The rules of CloudEvents 1.0.2, with bounds for every text. All faults of an event are reported,
//! each without the value.

use super::media_type::MediaType;
use crate::http::FieldError;
use crate::post::new_event::NewEvent;
use evenkeel::event::{Attributes, new_id};
use jiff::Timestamp;

/// The most characters of an id.
const ID_CHARS_MAX: usize = 200;
/// The most bytes of a subject, and of the value of an extension.
const TEXT_BYTES_MAX: usize = 1_024;
/// The most extensions of an event.
const EXTENSIONS_MAX: usize = 16;
/// The most characters of an extension's name.
const NAME_CHARS_MAX: usize = 20;
/// The prefix of names that records written by evenkeel use.
const OWN_PREFIX: &str = "evenkeel";
/// Extensions that the gateway sets: a record has the trace of its request.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];
/// The attribute that may be among the extensions of an event.
const CONTENT_TYPE: &str = "datacontenttype";
/// Names that are no extensions: attributes of the specification, and the member of the data.
const RESERVED: [&str; 8] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "dataschema",
    "data",
];

/// The attributes of an event: those that it has, checked, and the others as the gateway sets them.
/// They are moved out of the event, but for those of one with a fault.
pub(in crate::post) fn complete(
    event: &mut NewEvent,
    source: &str,
    now: Timestamp,
) -> Result<Attributes, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut fault = |name: &str, detail: &str| errors.push(event.attribute_error(name, detail));
    if let Some(detail) = event.id.as_deref().and_then(id_fault) {
        fault("id", detail);
    }
    match event.subject.as_deref() {
        Some("") => fault("subject", "is empty"),
        Some(subject) => {
            if let Some(detail) = text_fault(subject) {
                fault("subject", detail);
            }
        }
        None => {}
    }
    let time = match event.time.as_deref().map(parse_time) {
        None => Some(now),
        Some(Ok(time)) => Some(time),
        Some(Err(detail)) => {
            fault("time", detail);
            None
        }
    };
    let mut extensions = 0;
    for (name, value) in &event.extensions {
        if TRACE.contains(&name.as_str()) {
            continue;
        }
        if name == CONTENT_TYPE {
            if !is_json(value) {
                fault(
                    name,
                    "must be application/json, or end with +json, in UTF-8",
                );
            }
            continue;
        }
        match name_fault(name).or_else(|| text_fault(value)) {
            Some(detail) => fault(name, detail),
            None => extensions += 1,
        }
    }
    if extensions > EXTENSIONS_MAX {
        fault("extensions", "are too many: at most 16");
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let id = event.id.take().unwrap_or_else(new_id);
    let mut attributes = Attributes::new(id, source, std::mem::take(&mut event.ty));
    attributes.subject = event.subject.take();
    attributes.time = time;
    attributes.datacontenttype = Some("application/json".to_owned());
    attributes.extensions = std::mem::take(&mut event.extensions);
    for name in TRACE.into_iter().chain([CONTENT_TYPE]) {
        attributes.extensions.remove(name);
    }
    Ok(attributes)
}

fn is_json(content_type: &str) -> bool {
    let media_type = MediaType::parse(content_type);
    media_type.is_some_and(|media_type| media_type.is_json_data() && media_type.is_utf8())
}

fn id_fault(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        return Some("is empty; omit it for a new one");
    }
    if id.chars().count() > ID_CHARS_MAX {
        return Some("is longer than 200 characters");
    }
    if id.chars().any(char::is_whitespace) || !id.chars().all(is_text) {
        return Some("has white space or a control character");
    }
    // Clients remove these segments from a path, so the event would have no URL.
    if id == "." || id == ".." {
        return Some("cannot be a dot segment");
    }
    None
}

fn name_fault(name: &str) -> Option<&'static str> {
    if name == "dataschema" {
        return Some("is not accepted: the event type names the schema");
    }
    if RESERVED.contains(&name) {
        return Some("is an attribute of the specification, and no extension");
    }
    if name.starts_with(OWN_PREFIX) {
        return Some("is reserved: a name of a caller cannot begin with evenkeel");
    }
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.bytes().all(is_name) {
        return Some("cannot name an extension: use 1 to 20 lower-case letters and digits");
    }
    None
}

fn text_fault(text: &str) -> Option<&'static str> {
    if text.len() > TEXT_BYTES_MAX {
        return Some("is longer than 1024 bytes");
    }
    (!text.chars().all(is_text)).then_some("has a control character or a noncharacter")
}

/// Whether the specification allows the character in a text.
fn is_text(character: char) -> bool {
    let code = u32::from(character);
    let is_noncharacter = (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE;
    !character.is_control() && !is_noncharacter
}

/// Reads a time. Digits beyond nanoseconds are cut.
fn parse_time(text: &str) -> Result<Timestamp, &'static str> {
    let detail = "is not an RFC 3339 time, such as 2026-11-30T08:00:00Z";
    let zone = zone_start(text.as_bytes()).ok_or(detail)?;
    let nanoseconds = "0000-00-00T00:00:00.000000000".len();
    let kept = &text[..zone.min(nanoseconds)];
    let cut = format!("{kept}{}", &text[zone..]).to_ascii_uppercase();
    cut.parse()
        .map_err(|_| "is no time between the years 0 and 9999")
}

/// Where the zone of an RFC 3339 time begins. None if the text has another form: the parser alone
/// accepts more, such as a space in place of the `T`.
fn zone_start(text: &[u8]) -> Option<usize> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let (head, tail) = text.split_at_checked(SHAPE.len())?;
    let fits = head.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        shape => byte.eq_ignore_ascii_case(shape),
    });
    let digits = match tail {
        [b'.', fraction @ ..] => {
            let digits = fraction
                .iter()
                .take_while(|byte| byte.is_ascii_digit())
                .count();
            (digits > 0).then_some(digits + 1)?
        }
        _ => 0,
    };
    let is_zone = match &tail[digits..] {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => {
            [h1, h2, m1, m2].iter().all(|byte| byte.is_ascii_digit())
        }
        _ => false,
    };
    (fits && is_zone).then_some(SHAPE.len() + digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn event() -> NewEvent {
        let data = RawValue::from_string("{}".to_owned()).expect("JSON");
        NewEvent::new("bank.opened.v1", data).with_pointer("/data")
    }

    /// The pointers of all faults.
    fn faults(event: &NewEvent) -> Vec<String> {
        let errors = complete(&mut event.clone(), "/callers/web", NOW)
            .err()
            .unwrap_or_default();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn what_is_absent_is_set() {
        let attributes = complete(&mut event(), "/callers/web", NOW).expect("a valid event");
        assert_eq!(attributes.id.len(), 36);
        assert_eq!(attributes.source, "/callers/web");
        assert_eq!(attributes.time, Some(NOW));
        assert_eq!(
            attributes.datacontenttype.as_deref(),
            Some("application/json")
        );
        assert_eq!(attributes.subject, None);
    }

    #[test]
    fn ids_are_visible_and_short() {
        for (id, is_valid) in [
            ("1".to_owned(), true),
            ("partition:1/offset:23".to_owned(), true),
            ("a?b#c%20&d".to_owned(), true),
            ("é".repeat(200), true),
            ("x".repeat(201), false),
            (String::new(), false),
            ("a b".to_owned(), false),
            ("a\u{a0}b".to_owned(), false),
            ("a\nb".to_owned(), false),
            ("a\u{7f}".to_owned(), false),
            ("a\u{fffe}".to_owned(), false),
            ("..".to_owned(), false),
            ("...".to_owned(), true),
        ] {
            let found = faults(&event().with_id(id.clone()));
            assert_eq!(found.is_empty(), is_valid, "{id:?}: {found:?}");
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        for (text, expected) in [
            ("2018-04-05T17:31:00Z", Some("2018-04-05T17:31:00Z")),
            ("2018-04-05t17:31:00z", Some("2018-04-05T17:31:00Z")),
            ("2018-04-05T17:31:00+02:00", Some("2018-04-05T15:31:00Z")),
            (
                "2021-11-17T22:48:50.315578709Z",
                Some("2021-11-17T22:48:50.315578709Z"),
            ),
            (
                "2021-11-17T22:48:50.3155787091234+01:00",
                Some("2021-11-17T21:48:50.315578709Z"),
            ),
            ("2018-04-05 17:31:00Z", None),
            ("2018-04-05T17:31:00", None),
            ("2018-04-05T17:31Z", None),
            ("2018-04-05T17:31:00.Z", None),
            ("2018-04-05T17:31:00+0200", None),
            ("2018-04-05T17:31:00Z[Europe/Berlin]", None),
            ("2018-13-05T17:31:00Z", None),
            ("2018-04-31T17:31:00Z", None),
            ("9999-12-31T23:59:59.9999999Z", None),
            ("Thu, 05 Apr 2018 17:31:00 GMT", None),
            ("1522949460", None),
            ("２018-04-05T17:31:00Z", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse().expect(text));
            assert_eq!(parse_time(text).ok(), expected, "{text}");
            let found = faults(&event().with_time(text.to_owned()));
            assert_eq!(found.is_empty(), expected.is_some(), "{text}");
        }
    }

    #[test]
    fn extension_names_follow_the_specification() {
        for (name, is_valid) in [
            ("comexampleextension1", true),
            ("0", true),
            ("partitionkey", true),
            ("knativearrivaltime", true),
            ("traceparent", true),
            ("tracestate", true),
            ("kafkaheadercontenttype", false),
            ("", false),
            ("tenantId", false),
            ("my-extension", false),
            ("my_extension", false),
            ("é", false),
            ("data", false),
            ("data_base64", false),
            ("id", false),
            ("specversion", false),
            ("dataschema", false),
            ("evenkeelorigin", false),
        ] {
            let found = faults(&event().with_extension(name, "x"));
            assert_eq!(found.is_empty(), is_valid, "{name}: {found:?}");
        }
    }

    #[test]
    fn texts_and_extensions_are_bounded() {
        let long = "x".repeat(1_025);
        let mut many = event();
        for index in 0..17 {
            many = many.with_extension(format!("x{index}"), "1");
        }
        for (event, pointers) in [
            (event().with_subject(long[1..].to_owned()), vec![]),
            (event().with_subject(long.clone()), vec!["/subject"]),
            (event().with_subject(String::new()), vec!["/subject"]),
            (
                event().with_subject("a\u{1b}[0m".to_owned()),
                vec!["/subject"],
            ),
            (event().with_extension("a", ""), vec![]),
            (event().with_extension("a", long.clone()), vec!["/a"]),
            (
                event().with_extension("datacontenttype", "text/xml"),
                vec!["/datacontenttype"],
            ),
            (
                event().with_extension("datacontenttype", "application/vnd.x+json"),
                vec![],
            ),
            (many, vec!["/extensions"]),
            (
                event()
                    .with_subject(long.clone())
                    .with_time("now".to_owned()),
                vec!["/subject", "/time"],
            ),
        ] {
            assert_eq!(faults(&event), pointers);
        }
    }

    #[test]
    fn a_callers_trace_is_left_out() {
        let mut event = event()
            .with_extension("traceparent", "forged")
            .with_extension("a", "1");
        let attributes = complete(&mut event, "/callers/web", NOW).expect("a valid event");
        assert_eq!(attributes.extensions.into_keys().collect::<Vec<_>>(), ["a"]);
    }
}
