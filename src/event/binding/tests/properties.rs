//! Properties of all events and all bytes.

use super::structured::{STRUCTURED, structured};
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn extension_names() -> impl Strategy<Value = String> {
    "[a-z0-9]{1,20}".prop_filter("reserved", |name| {
        crate::event::attributes::is_extension_name(name.as_bytes())
    })
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let mandatory = ("\\PC{1,20}", "\\PC{1,20}", "\\PC{1,20}");
    let texts = prop::array::uniform3(prop::option::of(".{0,20}"));
    // From year 1 to year 9999: the range of RFC 3339.
    let seconds = -62_135_596_800_i64..253_370_764_800;
    let time = prop::option::of((seconds, 0_i32..1_000_000_000));
    let extensions = prop::collection::btree_map(extension_names(), ".{0,20}", 0..5);
    (mandatory, texts, time, extensions).prop_map(|((id, source, ty), texts, time, extensions)| {
        let [subject, datacontenttype, dataschema] = texts;
        let time = time.map(|(second, nanosecond)| {
            jiff::Timestamp::new(second, nanosecond).expect("within the years of RFC 3339")
        });
        Attributes {
            subject,
            time,
            datacontenttype,
            dataschema,
            extensions,
            ..Attributes::new(id, source, ty)
        }
    })
}

/// Header names that resemble meaningful ones, and any others.
fn header_names() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_time",
            "ce_subject",
            "content-type",
            "ce_x",
            "ce_",
            "traceparent",
            "tracestate",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ]
}

fn header_values() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::weighted(
        0.9,
        prop_oneof![
            prop::sample::select(vec![
                "1.0",
                STRUCTURED,
                "APPLICATION/cloudevents",
                "2026-11-21T08:00:00Z",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..40),
        ],
    )
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(
        attributes in attributes(),
        name in ".{0,20}",
        count: u64,
        structured: bool,
    ) {
        let mode = if structured { ContentMode::Structured } else { ContentMode::Binary };
        let event = Event { attributes, data: Payload { name, count } };
        let record = encode(&event, mode, None).expect("the event can be encoded");
        let envelope = decode(record.headers.iter(), record.value.as_deref()).expect("an event");
        prop_assert_eq!(envelope.attributes, event.attributes);
        let data: Payload = serde_json::from_slice(&envelope.data.expect("has data"))
            .expect("the bytes are JSON");
        prop_assert_eq!(data, event.data);
    }

    #[test]
    fn any_headers_and_any_value_are_read_without_panic(
        pairs in prop::collection::vec((header_names(), header_values()), 0..12),
        value in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
    ) {
        let mut headers = Headers::new();
        for (name, value) in &pairs {
            headers.push(name, value.as_deref());
        }
        let _ = decode(headers.iter(), value.as_deref());
        let _ = TraceContext::from_headers(headers.iter());
    }

    #[test]
    fn any_json_near_an_event_is_read_without_panic(
        members in prop::collection::vec(
            (
                prop_oneof![
                    prop::sample::select(vec!["specversion", "id", "source", "type", "time", "data", "data_base64"])
                        .prop_map(str::to_owned),
                    "[a-z_]{0,4}",
                ],
                prop_oneof![
                    Just(json!("1.0")), Just(Value::Null), Just(json!({"a": [1, 2.5]})),
                    any::<i64>().prop_map(|n| json!(n)), "\\PC{0,8}".prop_map(|s| json!(s)),
                ],
            ),
            0..10,
        ),
        cut in 0_usize..200,
    ) {
        let document: serde_json::Map<_, _> = members.into_iter().collect();
        let text = Value::Object(document).to_string();
        let end = text.floor_char_boundary(cut);
        for text in [&text[..], &text[..end]] {
            let _ = structured(STRUCTURED, text);
        }
    }
}
