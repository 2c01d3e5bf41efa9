//! HTTP/2 connections that are made to cost more than a request: resets, heads without an end, and
//! heads that grow when they are decompressed.
//!
//! Frames are written by hand, as no client sends these. Each attack fits in one segment, so that
//! the connection has no unread bytes when the gateway leaves it, and its last frame arrives.

use super::super::{impatient, no_kafka};
use crate::support::{TestGateway, WITHIN, request};
use evenkeel_gateway::server::ConnectionLimits;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

/// Flags of `HEADERS`: the request has no body, and its head is complete.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The code of an error, as a `GOAWAY` names it.
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `GET /problems/gone`, compressed: fields of the static table, two with values of their own.
fn head() -> Vec<u8> {
    let (path, authority) = (b"/problems/gone", b"127.0.0.1");
    let mut head = vec![0x82, 0x86, 0x04, path.len() as u8];
    head.extend(path);
    head.extend([0x01, authority.len() as u8]);
    head.extend(authority);
    head
}

/// A field whose name and value enter the table, as its entry 62: 4,000 bytes from a few.
fn entry() -> Vec<u8> {
    // The name `x`; then 4,000 as an integer with a prefix of 7 bits.
    let mut entry = vec![0x40, 1, b'x', 0x7f, 0xa1, 0x1e];
    entry.extend([b'y'; 4_000]);
    entry
}

/// Sends frames on a connection of its own, and reads up to its end. Returns the code of `GOAWAY`.
async fn end_after(gateway: &TestGateway, frames: &[u8]) -> Option<u32> {
    let stream = TcpStream::connect(gateway.address).await;
    let mut stream = stream.expect("a connection");
    let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), frames].concat();
    stream.write_all(&bytes).await.expect("it is open");
    let mut received = Vec::new();
    let read = timeout(WITHIN, stream.read_to_end(&mut received)).await;
    // A reset ends the connection, too.
    let _ = read.expect("the gateway closes the connection");
    last_code(&received)
}

/// The code in the last `GOAWAY` of these frames.
fn last_code(mut received: &[u8]) -> Option<u32> {
    let mut code = None;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = received {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        if let (GOAWAY, [_, _, _, _, a, b, c, d, ..]) = (*kind, payload) {
            code = Some(u32::from_be_bytes([*a, *b, *c, *d]));
        }
        received = rest;
    }
    code
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_only() {
    let gateway = TestGateway::start(&no_kafka()).await;
    // CVE-2023-44487, haproxy#2312: requests that are taken back at once.
    let resets: Vec<u8> = (0..60)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let begun = frame(HEADERS, END_STREAM | END_HEADERS, stream, &head());
            [begun, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    // A head that never ends, with fields and without.
    let begun = frame(HEADERS, END_STREAM, 1, &head());
    let field = b"\x00\x01x\x01y";
    let endless: Vec<u8> = (0..20)
        .flat_map(|_| frame(CONTINUATION, 0, 1, field))
        .collect();
    let empty: Vec<u8> = (0..20)
        .flat_map(|_| frame(CONTINUATION, 0, 1, &[]))
        .collect();
    // A head of 8 KB that is 16 MB when it is decompressed.
    let bomb = [head(), entry(), vec![0xbe; 4_000]].concat();
    let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);
    let mut oversized = vec![0xff, 0xff, 0xff, HEADERS, END_HEADERS, 0, 0, 0, 1];
    oversized.extend([0; 64]);
    for (name, frames, expected) in [
        ("resets", resets, ENHANCE_YOUR_CALM),
        (
            "endless heads",
            [&begun[..], &endless].concat(),
            ENHANCE_YOUR_CALM,
        ),
        (
            "empty frames",
            [&begun[..], &empty].concat(),
            ENHANCE_YOUR_CALM,
        ),
        ("a bomb", bomb, ENHANCE_YOUR_CALM),
        ("a frame of 16 MB", oversized, FRAME_SIZE_ERROR),
    ] {
        let began = Instant::now();
        assert_eq!(end_after(&gateway, &frames).await, Some(expected), "{name}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            began.elapsed()
        );
        let other = gateway
            .send(request("GET", "/problems/gone", &[], b""))
            .await;
        assert_eq!(other.status, 200, "after {name}: {}", other.text);
    }
}

#[tokio::test]
async fn pings_do_not_keep_a_connection() {
    let gateway = impatient().await;
    let stream = TcpStream::connect(gateway.address).await;
    let (mut reads, mut writes) = stream.expect("a connection").into_split();
    let begin = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    writes.write_all(&begin).await.expect("it is open");
    let pings = tokio::spawn(async move {
        let mut due = tokio::time::interval(Duration::from_millis(50));
        loop {
            due.tick().await;
            if writes.write_all(&frame(PING, 0, 0, &[0; 8])).await.is_err() {
                return;
            }
        }
    });
    let mut received = Vec::new();
    let read = timeout(Duration::from_secs(5), reads.read_to_end(&mut received)).await;
    let _ = read.expect("the gateway closes the connection");
    assert!(received.len() > 9, "it answered some pings");
    pings.abort();
}

/// What a client that reads nothing sends beside a request whose answer waits.
#[derive(Debug, Clone, Copy)]
enum Beside {
    /// More requests.
    Requests,
    /// Requests whose answers have no body.
    HeadRequests,
    /// Requests that it resets when it sends the next one.
    Resets,
}

impl Beside {
    /// The frames of the request with this number, from 0 on. The first one is never reset.
    fn frames(self, number: u32) -> Vec<u8> {
        let stream = 2 * number + 1;
        let fields = match self {
            Self::HeadRequests if number > 0 => {
                // The method as a value of its own, instead of the entry `GET` of the table.
                [&b"\x02\x04HEAD"[..], &head()[1..]].concat()
            }
            _ => head(),
        };
        let begun = frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields);
        match self {
            Self::Resets if number > 1 => {
                let reset = frame(RST_STREAM, 0, stream - 2, &8_u32.to_be_bytes());
                [reset, begun].concat()
            }
            _ => begun,
        }
    }
}

#[tokio::test]
async fn requests_do_not_keep_a_connection_that_reads_nothing() {
    let gateway = TestGateway::start_with(&no_kafka(), |settings| {
        let limits = ConnectionLimits::default().with_write_stalled_max(Duration::from_millis(500));
        settings.with_connections(limits)
    })
    .await;
    // The window has no room for a byte of an answer, or for no more than one.
    for (window, beside) in [
        (0, Beside::Requests),
        (0, Beside::HeadRequests),
        (0, Beside::Resets),
        (1, Beside::Requests),
        (1, Beside::Resets),
    ] {
        let stream = TcpStream::connect(gateway.address).await;
        let (mut reads, mut writes) = stream.expect("a connection").into_split();
        let small_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, window]);
        let begin = [PREFACE, &small_window].concat();
        writes.write_all(&begin).await.expect("it is open");
        let requests = tokio::spawn(async move {
            let mut due = tokio::time::interval(Duration::from_millis(100));
            for number in 0..100 {
                due.tick().await;
                if writes.write_all(&beside.frames(number)).await.is_err() {
                    return;
                }
            }
        });
        let mut received = Vec::new();
        let read = timeout(Duration::from_secs(9), reads.read_to_end(&mut received)).await;
        let closed = read.is_ok();
        requests.abort();
        assert!(closed, "window {window}, {beside:?}: it is still open");
    }
}
