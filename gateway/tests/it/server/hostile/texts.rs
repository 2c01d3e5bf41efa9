//! Paths, headers and bodies that are no UTF-8, too long, or written so that they may be misread.

use super::super::{PLACED, no_kafka};
use crate::support::{ORDER, TestGateway, post, request};

/// A read with a header whose value is any bytes.
fn get(target: &[u8], name: &str, value: &[u8]) -> Vec<u8> {
    let rest = b" HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n";
    let start = [&b"GET "[..], target, rest].concat();
    let header = [name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
    [start, header].concat()
}

/// A post in binary mode with a header whose value is any bytes.
fn posted(name: &str, value: &[u8]) -> Vec<u8> {
    let start = format!(
        "POST /events HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
         content-length: {}\r\nce-specversion: 1.0\r\nce-type: {PLACED}\r\n",
        ORDER.len()
    );
    let content_type = match name {
        "content-type" => "",
        _ => "content-type: application/json\r\n",
    };
    let header = [name.as_bytes(), b": ", value, b"\r\n\r\n"].concat();
    [
        start.as_bytes(),
        content_type.as_bytes(),
        &header,
        ORDER.as_bytes(),
    ]
    .concat()
}

async fn check(gateway: &TestGateway, bytes: &[u8], expected: u16) {
    let answer = gateway.send(bytes).await;
    let start: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
    assert_eq!(answer.status, expected, "{start:?}: {}", answer.text);
    assert!(
        !answer.text.contains("\r\nset-cookie"),
        "{start:?}: {}",
        answer.text
    );
}

#[tokio::test]
async fn tricks_in_paths_lead_nowhere() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for (target, expected) in [
        // One spelling that is not canonical has one reading, and is served.
        (&b"/problems/%67one"[..], 200),
        (b"/problems/gone?", 200),
        // envoy#6435, envoy#7611, envoy#16461, dapr#9804, dapr#6418.
        (b"/problems/../openapi.json", 404),
        (b"/./openapi.json", 404),
        (b"/%2e%2e/openapi.json", 404),
        (b"/problems/.%2E/openapi.json", 404),
        (b"/problems/..%2fgone", 404),
        (b"/problems/x%2f..%2fgone", 404),
        (b"/problems%2Fgone", 404),
        (b"/problems/%252e%252e", 404),
        (b"/problems/%5cgone", 404),
        (b"//problems/gone", 404),
        (b"/problems//gone", 404),
        (b"/problems/gone/", 404),
        (b"/problems/gone;x=1", 404),
        (b"/openapi.json;.css", 404),
        (b"/openapi.json%00.css", 404),
        (b"/openapi.json%0a", 404),
        (b"/openapi.json%20", 404),
        (b"/PROBLEMS/gone", 404),
        (b"/problems/gone%0d%0aset-cookie:%20a=b", 404),
        // Bytes that are no UTF-8, and the longer forms of a slash.
        (b"/problems/\xff", 400),
        (b"/problems/\xc0\xaf", 400),
        (b"/problems/\xe0\x80\xaf", 400),
        (b"/problems/gone\x00", 400),
        (b"/problems/gone\x7f", 400),
        ("/problems/gön".as_bytes(), 404),
        (b"/problems/%ff", 404),
        (b"/problems/%c0%af", 404),
        (b"/events/%ff", 400),
        (b"/events/%c0%af", 400),
        (b"/orders/%ff", 400),
        (b"/events?type=%ff", 400),
    ] {
        check(&gateway, &get(target, "x-none", b""), expected).await;
    }
}

#[tokio::test]
async fn bytes_in_headers_are_refused_or_ignored() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let stream = format!("/events?type={PLACED}");
    let page = b"/problems/gone";
    let long_cursor = vec![b'A'; 12 << 10];
    let longer_cursor = vec![b'A'; 64 << 10];
    for (target, name, value, expected) in [
        (&page[..], "x-odd", &b"\xff\xfe"[..], 200),
        (page, "traceparent", b"\xff", 200),
        (page, "authorization", b"Bearer \xff", 200),
        (page, "x-request-timeout", b"\xff", 400),
        (page, "x-control", b"a\x01b", 400),
        (page, "x-delete", b"a\x7fb", 400),
        // whatwg/html#689, undici#5746: what browsers may send as the id of the last event.
        (stream.as_bytes(), "last-event-id", b"no-cursor", 400),
        (stream.as_bytes(), "last-event-id", b"\xff", 400),
        (stream.as_bytes(), "last-event-id", "é".as_bytes(), 400),
        (stream.as_bytes(), "last-event-id", b"a\x0cb", 400),
        (stream.as_bytes(), "last-event-id", &long_cursor, 400),
        (stream.as_bytes(), "last-event-id", &longer_cursor, 431),
    ] {
        check(&gateway, &get(target, name, value), expected).await;
    }
    // strimzi-kafka-bridge#598, strimzi-kafka-bridge#714: an odd content type is no error of ours.
    for (name, value, expected) in [
        ("ce-subject", &b"caf%C3%A9"[..], 202),
        ("ce-id", b"\xff", 400),
        ("ce-id", b"%ff", 400),
        ("ce-subject", b"\xc0\xaf", 400),
        ("idempotency-key", b"\xff", 400),
        ("content-type", b"\xff", 415),
        ("content-type", b"", 415),
        ("origin", b"\xff", 403),
        ("sec-fetch-site", b"\xff", 403),
    ] {
        check(&gateway, &posted(name, value), expected).await;
    }
}

#[tokio::test]
async fn bodies_that_are_no_text_are_malformed() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let deep = "[".repeat(100_000);
    let deep_members = r#"{"a":"#.repeat(10_000);
    for body in [
        &b""[..],
        b"\xff",
        b"{\"order_id\": \"\xc0\xaf\"}",
        b"{\"order_id\": \"\xed\xa0\x80\"}",
        b"{\"order_id\": \"\xf0\x9f\"}",
        b"\xff\xfe{\x00}\x00",
        b"\x00",
        b"{\"order_id\": \"a\x00b\"}",
        b"{} {}",
        deep.as_bytes(),
        deep_members.as_bytes(),
    ] {
        check(&gateway, &post(PLACED, &[], body), 400).await;
    }
    // A gateway that survived all of it.
    check(&gateway, &request("GET", "/problems/gone", &[], b""), 200).await;
}
