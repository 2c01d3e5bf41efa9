//! Answers that are given before the end of their request reach a client that still sends: its
//! writes do not fail, and it reads the answer afterwards.

use super::no_kafka;
use crate::support::{TestGateway, read_answer};
use evenkeel_gateway::server::{BodyLimits, GatewaySettings};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// What a client sends after the answer is there, in parts.
const PARTS: usize = 8;
const PART_BYTES: usize = 32 << 10;

/// The head of a post, with a body of this many bytes.
fn head(target: &str, headers: &str, length: usize) -> String {
    format!(
        "POST {target} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}content-length: {length}\r\n\r\n"
    )
}

/// Writes the beginning of a request, waits for the answer, then sends the rest slowly.
async fn check(gateway: &TestGateway, begin: &[u8], expected: u16) {
    let stream = TcpStream::connect(gateway.address).await;
    let mut stream = stream.expect("a connection");
    stream.write_all(begin).await.expect("it is open");
    stream.readable().await.expect("an answer");
    let part = vec![b'x'; PART_BYTES];
    for index in 0..PARTS {
        let written = stream.write_all(&part).await;
        assert!(written.is_ok(), "{expected}: part {index}: {written:?}");
        // A reset would arrive in this time.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = read_answer(&mut stream).await;
    assert_eq!(answer.status, expected, "{}", answer.text);
    let length = answer.header("content-length").expect("a length");
    let body = answer.text.split("\r\n\r\n").nth(1).expect("a body");
    assert_eq!(length, body.len().to_string(), "the answer is whole");
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_sends() {
    let change = |settings: GatewaySettings| {
        settings.with_body(BodyLimits::default().with_bytes_max(1 << 20))
    };
    let gateway = TestGateway::start_with(&no_kafka(), change).await;
    let json = "content-type: application/json\r\n";
    let foreign = format!("{json}origin: https://evil.example.org\r\n");
    let (rest, placed) = (PARTS * PART_BYTES, "/events/shop.order-placed.v1");
    for (begin, expected) in [
        (head(placed, json, 2 << 20), 413),
        (head(placed, &foreign, rest), 403),
        (head("/no-such-route", json, rest), 404),
        (head("/problems/gone", json, rest), 405),
    ] {
        check(&gateway, begin.as_bytes(), expected).await;
    }
}
