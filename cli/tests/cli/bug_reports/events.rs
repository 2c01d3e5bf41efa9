//! Reports about what comes in: events of other SDKs and records that are none, given to the shop's payments.

use super::{Shop, record};
use evenkeel::event::OutgoingRecord;
use std::time::Duration;

const PLACED: &str = "shop.order-placed.v1";

fn order(id: &str) -> String {
    format!(
        r#"{{"order_id":"{id}","customer_id":"c-1","lines":[{{"article":"tea","quantity":2,"price_cents":870}}],"total_cents":1740,"placed_at":"2026-01-01T00:00:00Z"}}"#
    )
}

/// An order in binary mode with further headers.
fn binary(id: &str, more: &[(&str, &str)]) -> OutgoingRecord {
    let core = [
        ("ce_specversion", "1.0"),
        ("ce_id", id),
        ("ce_source", "/test"),
        ("ce_type", PLACED),
    ];
    record(id, &[&core, more].concat(), Some(&order(id)))
}

/// What the payments make of records: the answers, as keys of what they published, and the dead letters' messages.
async fn payments(records: Vec<OutgoingRecord>) -> (Vec<String>, Vec<String>) {
    let shop = Shop::open().await;
    shop.publish(records).await;
    let run = shop.run("payments", &["--until-end", "--store", "payments.db"], b"");
    tokio::time::timeout(Duration::from_secs(60), run)
        .await
        .expect("it ends in time")
        .code(0);
    let text =
        |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let answers = shop.read("shop.payments").await;
    let answers = answers
        .iter()
        .map(|record| text(record.key.as_deref()))
        .collect();
    let letters = shop.read("dlq.payments.shop.orders").await;
    let message = |record: &evenkeel::kafka::reader::LogRecord| {
        text(record.headers.last("__dlq.errors.message"))
    };
    (answers, letters.iter().map(message).collect())
}

/// All of these are handled.
async fn check(records: Vec<OutgoingRecord>, ids: &[&str]) {
    let (mut answers, letters) = payments(records).await;
    // Keys have no order among each other.
    answers.sort_unstable();
    assert_eq!(
        (answers, letters),
        (ids.iter().map(|id| (*id).to_owned()).collect(), vec![])
    );
}

#[tokio::test]
async fn smallrye_2061_an_unrepresentable_time_loses_no_event() {
    let times = [
        "9999-12-31T23:59:59.9999999Z",
        "2026-01-01T00:00:00.123456789012Z",
        "2023-01-25T19:07:06.370582GMT",
        "2020-07-16T13:53:54.545218America/Los_Angeles",
        "2022-02-24T13:25:16+0000",
        "2018-07-23 09:51:00",
        "",
    ];
    let ids: Vec<String> = (0..times.len())
        .map(|number| format!("o-{number}"))
        .collect();
    let records = ids
        .iter()
        .zip(times)
        .map(|(id, time)| binary(id, &[("ce_time", time)]));
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    check(records.collect(), &ids).await;
}

#[tokio::test]
async fn sdk_go_757_unhandled_types_may_be_malformed() {
    let mut records: Vec<_> = (0..120)
        .map(|number| {
            let id = number.to_string();
            let headers = [
                ("ce_specversion", "1.0"),
                ("ce_id", id.as_str()),
                ("ce_source", "/other"),
                ("ce_type", "otherteam.contract-created.v1"),
                ("ce_time", "never"),
            ];
            record(&id, &headers, Some("no JSON"))
        })
        .collect();
    records.push(binary("o-1", &[]));
    check(records, &["o-1"]).await;
}

#[tokio::test]
async fn serde_json_320_integers_with_a_zero_fraction_are_accepted() {
    let mut placed = binary("o-1", &[]);
    let value = order("o-1")
        .replace("\"quantity\":2", "\"quantity\":2.0")
        .replace("1740", "1.74e3");
    placed.value = Some(value.into());
    check(vec![placed], &["o-1"]).await;
}

fn structured(id: &str, content_type: &[(&str, &str)], more: &str) -> OutgoingRecord {
    let value = format!(
        r#"{{"data":{},"datacontenttype":"application/json","id":"{id}"{more},"source":"/test","specversion":"1.0","type":"{PLACED}"}}"#,
        order(id)
    );
    record(id, content_type, Some(&value))
}

const STRUCTURED: &[(&str, &str)] = &[("content-type", "application/cloudevents+json")];

#[tokio::test]
async fn sdk_java_85_data_base64_of_null_is_absent() {
    check(
        vec![structured("o-1", STRUCTURED, ",\"data_base64\":null")],
        &["o-1"],
    )
    .await;
}

#[tokio::test]
async fn micronaut_605_attributes_in_json_quotes_are_read_without_them() {
    let quoted = |text: &str| format!("\"{text}\"");
    let placed = binary("o-1", &[]);
    let pairs = placed.headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        (String::from_utf8_lossy(name).into_owned(), quoted(&value))
    });
    let pairs: Vec<_> = pairs.collect();
    let headers: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    check(vec![record("o-1", &headers, Some(&order("o-1")))], &["o-1"]).await;
}

/// Without a header, and with the payload's content type, as the Python SDK before 2.0 has it.
#[tokio::test]
async fn dapr_574_an_event_that_no_header_marks_is_one() {
    let json = [("content-type", "application/json")];
    check(
        vec![structured("o-1", &[], ""), structured("o-2", &json, "")],
        &["o-1", "o-2"],
    )
    .await;
}

#[tokio::test]
async fn sdk_java_370_wrong_or_missing_content_types_are_accepted() {
    let stray = binary("o-1", &[("ce_datacontenttype", "text/plain")]);
    check(vec![stray, binary("o-2", &[])], &["o-1", "o-2"]).await;
}

#[tokio::test]
async fn kafka_go_659_tombstones_are_dead_lettered_and_block_nothing() {
    let (answers, letters) = payments(vec![record("o-0", &[], None), binary("o-1", &[])]).await;
    assert_eq!((answers, letters.len()), (vec!["o-1".to_owned()], 1));
}

/// Neither the payload's type nor Base64 around it changes what it is.
#[tokio::test]
async fn spec_933_base64_payloads_without_a_content_type_are_read() {
    let untyped = structured("o-1", STRUCTURED, "");
    let value =
        String::from_utf8(untyped.value.expect("a value").to_vec()).expect("the bytes are UTF-8");
    let value = value.replace("\"datacontenttype\":\"application/json\",", "");
    let base64 = "eyJvcmRlcl9pZCI6Im8tMiIsImN1c3RvbWVyX2lkIjoiYy0xIiwibGluZXMiOlt7ImFydGljbGUiOiJ0ZWEiLCJxdWFudGl0eSI6MiwicHJpY2VfY2VudHMiOjg3MH1dLCJ0b3RhbF9jZW50cyI6MTc0MCwicGxhY2VkX2F0IjoiMjAyNi0wMS0wMVQwMDowMDowMFoifQ==";
    let binary = format!(
        r#"{{"specversion":"1.0","id":"o-2","source":"/test","type":"{PLACED}","data_base64":"{base64}"}}"#
    );
    let records = vec![
        record("o-1", STRUCTURED, Some(&value)),
        record("o-2", STRUCTURED, Some(&binary)),
    ];
    check(records, &["o-1", "o-2"]).await;
}

/// An event without data is a dead letter of a handler that needs some, and nothing else waits for it.
#[tokio::test]
async fn sdk_java_540_an_event_without_data_is_named() {
    let mut empty = binary("o-0", &[]);
    empty.value = None;
    let (answers, letters) = payments(vec![empty, binary("o-1", &[])]).await;
    assert_eq!(answers, ["o-1"]);
    assert_eq!(letters.len(), 1, "{letters:?}");
}
