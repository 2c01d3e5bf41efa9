//! What clients of other bridges send: content types with parameters, byte order marks, codings,
//! `Expect`, chunks with trailers, HTTP/1.0, quoted keys, and methods that a route does not have.

use super::{PLACED, no_kafka};
use crate::support::{ORDER, TestGateway, post, request};

const BATCH: &str = "application/cloudevents-batch+json";
const STRUCTURED: &str = "application/cloudevents+json";

/// An event in structured mode, with an id and a content type of its data.
fn event(id: &str, content_type: &str) -> String {
    format!(
        r#"{{"specversion": "1.0", "type": "{PLACED}", "id": "{id}",
            "datacontenttype": "{content_type}", "data": {ORDER}}}"#
    )
}

fn posted(content_type: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers = [headers, &[("content-type", content_type)]].concat();
    request("POST", "/events", &headers, body.as_bytes())
}

/// A post whose head ends with these lines.
fn raw(version: &str, lines: &str, body: &str) -> Vec<u8> {
    format!(
        "POST /events/{PLACED} HTTP/{version}\r\nhost: 127.0.0.1\r\nconnection: close\r\n\
         content-type: application/json\r\n{lines}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test]
async fn bodies_of_other_clients_are_read_or_refused() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let json = "application/json; charset=UTF-8";
    let pair = |first: &str, second: &str| {
        let (first, second) = (event(first, json), event(second, json));
        format!("[{first}, {second}]")
    };
    let batch_utf8 = format!("{BATCH}; charset=UTF-8");
    let utf16 = format!("{STRUCTURED}; charset=utf-16");
    let marked = format!("\u{feff}{ORDER}");
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-type", PLACED),
        ("ce-id", "caf%C3%A9-1"),
        ("ce-subject", "\"quoted %E2%82%AC\""),
    ];
    for (name, bytes, expected) in [
        (
            "a batch with a charset",
            posted(&batch_utf8, &[], &pair("b-1", "b-2")),
            202,
        ),
        (
            "an id twice in a batch",
            posted(BATCH, &[], &pair("b-3", "b-3")),
            400,
        ),
        ("an empty batch", posted(BATCH, &[], "[]"), 400),
        (
            "a batch that is an event",
            posted(BATCH, &[], &event("b-4", json)),
            400,
        ),
        (
            "an event with a charset",
            posted(STRUCTURED, &[], &event("s-1", json)),
            202,
        ),
        (
            "data in XML",
            posted(STRUCTURED, &[], &event("s-2", "text/xml")),
            400,
        ),
        ("an event in UTF-16", posted(&utf16, &[], "{}"), 415),
        (
            "encoded headers",
            posted("application/json", &binary, ORDER),
            202,
        ),
        (
            "a byte order mark",
            post(PLACED, &[], marked.as_bytes()),
            202,
        ),
        (
            "gzip",
            post(PLACED, &[("content-encoding", "gzip")], b"\x1f\x8b\x08"),
            415,
        ),
        (
            "no coding",
            post(
                PLACED,
                &[("content-encoding", "identity")],
                ORDER.as_bytes(),
            ),
            202,
        ),
        (
            "no time",
            post(PLACED, &[("x-request-timeout", "0")], ORDER.as_bytes()),
            504,
        ),
        (
            "an hour",
            post(PLACED, &[("x-request-timeout", "3600")], ORDER.as_bytes()),
            202,
        ),
        (
            "more",
            post(PLACED, &[("x-request-timeout", "3601")], ORDER.as_bytes()),
            400,
        ),
        (
            "a form",
            posted("application/x-www-form-urlencoded", &[], "a=b"),
            415,
        ),
    ] {
        let answer = gateway.send(bytes).await;
        assert_eq!(answer.status, expected, "{name}: {}", answer.text);
    }
}

#[tokio::test]
async fn old_and_rare_forms_of_http_are_served() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let length = format!("content-length: {}", ORDER.len());
    let chunked = format!("{:x}\r\n{ORDER}\r\n0\r\nchecksum: 1\r\n\r\n", ORDER.len());
    let trailers = "transfer-encoding: chunked\r\ntrailer: checksum";
    let expect = format!("{length}\r\nexpect: 100-continue");
    let too_long = "content-length: 104857600\r\nexpect: 100-continue";
    for (name, bytes, lines) in [
        (
            "HTTP/1.0",
            raw("1.0", &length, ORDER),
            &["HTTP/1.0 202"][..],
        ),
        (
            "trailers",
            raw("1.1", trailers, &chunked),
            &["HTTP/1.1 202"],
        ),
        (
            "Expect",
            raw("1.1", &expect, ORDER),
            &["HTTP/1.1 100", "HTTP/1.1 202"],
        ),
        (
            "Expect, too long",
            raw("1.1", too_long, ""),
            &["HTTP/1.1 413"],
        ),
    ] {
        let answer = gateway.send(bytes).await;
        let found: Vec<_> = answer
            .text
            .lines()
            .filter(|line| line.starts_with("HTTP/"))
            .map(|line| &line[..12])
            .collect();
        assert_eq!(found, lines, "{name}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_quoted_key_is_the_key() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for (key, is_replayed) in [
        ("\"cart-7\"", false),
        ("cart-7", true),
        ("\"cart-7\";v=1", true),
    ] {
        let answer = gateway
            .send(post(PLACED, &[("idempotency-key", key)], ORDER.as_bytes()))
            .await;
        assert_eq!(answer.status, 202, "{key}: {}", answer.text);
        let replayed = answer.header("idempotency-replayed").is_some();
        assert_eq!(replayed, is_replayed, "{key}");
    }
}

#[tokio::test]
async fn a_method_that_a_route_lacks_is_named() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for (target, allowed) in [
        ("/events", &["GET", "HEAD", "POST"][..]),
        ("/events/x", &["GET", "HEAD", "POST"]),
        ("/orders", &["POST"]),
        ("/orders/x", &["GET", "HEAD"]),
        ("/orders/x/cancellation", &["POST"]),
        ("/openapi.json", &["GET", "HEAD"]),
        ("/problems/gone", &["GET", "HEAD"]),
        ("/ws", &["GET"]),
    ] {
        for method in ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"] {
            let answer = gateway.send(request(method, target, &[], b"")).await;
            assert_eq!(answer.status, 405, "{method} {target}: {}", answer.text);
            let allow = answer.header("allow").unwrap_or_default();
            let mut methods: Vec<_> = allow.split(',').map(str::trim).collect();
            methods.sort_unstable();
            assert_eq!(methods, allowed, "{method} {target}");
        }
    }
    for target in ["/openapi.json", "/problems/gone"] {
        let answer = gateway.send(request("HEAD", target, &[], b"")).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text);
        assert!(
            answer.text.ends_with("\r\n\r\n"),
            "{target}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn a_query_that_is_not_utf_8_is_refused() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let stream = format!("/events?type={PLACED}&key=caf%E9");
    for target in [stream.as_str(), "/events/e-1?source=caf%E9"] {
        let answer = gateway.send(request("GET", target, &[], b"")).await;
        assert_eq!(answer.status, 400, "{target}: {}", answer.text);
    }
}

#[tokio::test]
async fn an_old_websocket_client_is_told_the_version() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let headers = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let target = format!("/ws?type={PLACED}");
    let answer = gateway.send(request("GET", &target, &headers, b"")).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
}
