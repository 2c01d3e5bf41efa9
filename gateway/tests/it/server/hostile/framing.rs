//! Heads of HTTP/1.1 of which two programs may read different requests.
//!
//! Each is refused, or has the one reading of RFC 9112. A request that hides behind it is answered
//! only where every program would see two requests.

use super::super::{PLACED, no_kafka};
use crate::support::{ORDER, TestGateway};

/// What an attacker hides behind a request. It asks for the end, so that each case ends.
const HIDDEN: &str = "GET /problems/gone HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";

/// A post whose head ends with these lines, and the hidden request after its body.
fn posted(version: &str, lines: &str, body: &str) -> String {
    format!(
        "POST /events/{PLACED} HTTP/{version}\r\nhost: 127.0.0.1\r\n\
         content-type: application/json\r\n{lines}\r\n\r\n{body}{HIDDEN}"
    )
}

/// A read of an explanation, whose head begins with this line and ends with these.
fn read(line: &str, lines: &str) -> String {
    format!("{line}\r\n{lines}connection: close\r\n\r\n")
}

/// The statuses of all answers on a connection. An answer follows the body of the one before it
/// without a line break; no body names the protocol.
fn statuses(text: &str) -> Vec<u16> {
    let heads = text.split("HTTP/1.").skip(1);
    let statuses = heads.filter_map(|head| head.get(2..5)?.parse().ok());
    statuses.collect()
}

async fn check(gateway: &TestGateway, name: &str, bytes: &str, expected: &[u16]) {
    let answer = gateway.send(bytes).await;
    assert_eq!(statuses(&answer.text), expected, "{name}: {}", answer.text);
}

#[tokio::test]
async fn no_request_hides_behind_an_unclear_length() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let chunked = format!("{:x}\r\n{ORDER}\r\n0\r\n\r\n", ORDER.len());
    let length = format!("content-length: {}", ORDER.len());
    let chunks = "transfer-encoding: chunked";
    for (name, lines, body, expected) in [
        // Chunks win, and the connection ends: hyper#3860, hyper#4123, openlitespeed#392.
        (
            "length, chunks",
            format!("content-length: 4\r\n{chunks}"),
            &chunked[..],
            &[202][..],
        ),
        (
            "chunks, length",
            format!("{chunks}\r\ncontent-length: 4"),
            &chunked,
            &[202],
        ),
        // One length, sent twice, is one length.
        (
            "two equal lengths",
            format!("{length}\r\n{length}"),
            ORDER,
            &[202, 200],
        ),
        (
            "two lengths",
            format!("content-length: 0\r\n{length}"),
            ORDER,
            &[400],
        ),
        (
            "two lengths, swapped",
            format!("{length}\r\ncontent-length: 0"),
            ORDER,
            &[400],
        ),
        // haproxy#2237, goliath#351.
        (
            "an empty length",
            "content-length: ".to_owned(),
            ORDER,
            &[400],
        ),
        (
            "an empty length first",
            format!("content-length: \r\n{length}"),
            ORDER,
            &[400],
        ),
        (
            "a list of lengths",
            "content-length: 5, 5".to_owned(),
            "abcde",
            &[400],
        ),
        (
            "a signed length",
            "content-length: +5".to_owned(),
            "abcde",
            &[400],
        ),
        (
            "a length in hex",
            "content-length: 0x5".to_owned(),
            "abcde",
            &[400],
        ),
        (
            "an endless length",
            "content-length: 99999999999999999999".to_owned(),
            "",
            &[400],
        ),
        (
            "a space before the colon",
            "content-length : 5".to_owned(),
            "abcde",
            &[400],
        ),
        (
            "a folded line",
            format!("x-folded: a\r\n {length}"),
            "",
            &[400],
        ),
        (
            "a line without a name",
            format!(": a\r\n{length}"),
            ORDER,
            &[400],
        ),
        ("a bare CR", format!("x-cr: a\r{length}"), ORDER, &[400]),
        ("a NUL", format!("x-nul: a\0b\r\n{length}"), ORDER, &[400]),
        // hertz#1490.
        (
            "an unknown coding",
            "transfer-encoding: gzip".to_owned(),
            &chunked,
            &[400],
        ),
        (
            "no coding",
            "transfer-encoding: identity".to_owned(),
            &chunked,
            &[400],
        ),
        (
            "chunks inside",
            "transfer-encoding: chunked, gzip".to_owned(),
            &chunked,
            &[400],
        ),
        (
            "a longer word",
            "transfer-encoding: xchunked".to_owned(),
            &chunked,
            &[400],
        ),
        (
            "a shorter word",
            "transfer-encoding: chunke".to_owned(),
            &chunked,
            &[400],
        ),
    ] {
        check(&gateway, name, &posted("1.1", &lines, body), expected).await;
    }
    check(
        &gateway,
        "chunks of HTTP/1.0",
        &posted("1.0", chunks, &chunked),
        &[400],
    )
    .await;
}

#[tokio::test]
async fn no_request_hides_behind_unclear_chunks() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for (name, body) in [
        // go#71988, nginx#1016.
        ("a size that ends with LF", "5\nabcde\r\n0\r\n\r\n"),
        ("LF in an extension", "5;a\nb\r\nabcde\r\n0\r\n\r\n"),
        (
            "a size that overflows",
            "fffffffffffffffff5\r\nabcde\r\n0\r\n\r\n",
        ),
        ("a size in C", "0x5\r\nabcde\r\n0\r\n\r\n"),
        ("a signed size", "+5\r\nabcde\r\n0\r\n\r\n"),
        ("no size", "\r\nabcde\r\n0\r\n\r\n"),
        // pekko-http#1257, uhttpd#3, pound#43.
        ("a space in a size", "5 0\r\nabcde\r\n0\r\n\r\n"),
        ("an underscore in a size", "0_5\r\nabcde\r\n0\r\n\r\n"),
        ("more than its size", "5\r\nabcdeXX0\r\n\r\n"),
    ] {
        let bytes = posted("1.1", "transfer-encoding: chunked", body);
        check(&gateway, name, &bytes, &[400]).await;
    }
}

#[tokio::test]
async fn request_lines_have_one_reading() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let host = "host: 127.0.0.1\r\n";
    for (line, expected) in [
        ("\r\nGET /problems/gone HTTP/1.1", 200),
        ("GET http://127.0.0.1/problems/gone HTTP/1.1", 200),
        ("GET http://evil.example.org/problems/gone HTTP/1.1", 403),
        ("GET  /problems/gone HTTP/1.1", 400),
        ("GET /problems/gone  HTTP/1.1", 400),
        ("GET /problems/gone", 400),
        ("GET problems/gone HTTP/1.1", 400),
        ("GET /problems/gone HTTP/1.2", 400),
        ("GET /problems/gone HTTP/3.0", 400),
        ("GET /problems/gone http/1.1", 400),
        ("GET\t/problems/gone HTTP/1.1", 400),
        ("G\0T /problems/gone HTTP/1.1", 400),
        ("OPTIONS * HTTP/1.1", 404),
        ("CONNECT 127.0.0.1:22 HTTP/1.1", 404),
    ] {
        check(&gateway, line, &read(line, host), &[expected]).await;
    }
    // RFC 9112 allows a lone LF at the end of a line of the head.
    let lines = "GET /problems/gone HTTP/1.1\nhost: 127.0.0.1\nconnection: close\n\n";
    check(&gateway, "LF alone", lines, &[200]).await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let gateway = TestGateway::start(&no_kafka()).await;
    let get = "GET /problems/gone HTTP/1.1";
    // hyper#3857, hyper#3777: hyper leaves these to its user.
    for (lines, expected) in [
        ("host: 127.0.0.1\r\n", 200),
        ("host: localhost:1\r\n", 200),
        ("host: [::1]:8080\r\n", 200),
        ("", 400),
        ("host: \r\n", 400),
        ("host: 127.0.0.1\r\nhost: evil.example.org\r\n", 400),
        ("host: 127.0.0.1\r\nhost: 127.0.0.1\r\n", 400),
        ("host: evil.example.org/127.0.0.1\r\n", 400),
        ("host: user@127.0.0.1\r\n", 400),
        ("host: 127.0.0.1, evil.example.org\r\n", 400),
        ("host: evil.example.org\r\n", 403),
        ("host: localhost.evil.example.org\r\n", 403),
        ("host: 127.0.0.1.evil.example.org\r\n", 403),
    ] {
        check(&gateway, lines, &read(get, lines), &[expected]).await;
    }
    check(
        &gateway,
        "HTTP/1.0",
        &read("GET /problems/gone HTTP/1.0", ""),
        &[200],
    )
    .await;
}
