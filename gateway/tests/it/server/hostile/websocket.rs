//! WebSocket frames that a client must not send: each ends its connection, and no other.

use super::super::PLACED;
use crate::support::{TestGateway, WITHIN, mock_kafka, request};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// First bytes of frames: the last or only part of a message, and its opcode.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// A WebSocket that has begun. What it sends first is not read yet.
async fn websocket(gateway: &TestGateway) -> TcpStream {
    let socket = TcpStream::connect(gateway.address).await;
    let mut socket = socket.expect("a connection");
    let request = format!(
        "GET /ws?type={PLACED} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it is open");
    let mut status = [0; 12];
    let read = timeout(WITHIN, socket.read_exact(&mut status)).await;
    read.expect("an answer in time").expect("an answer");
    assert_eq!(
        &status,
        b"HTTP/1.1 101",
        "{}",
        String::from_utf8_lossy(&status)
    );
    socket
}

/// A frame of a client, with a mask of zeros, which leaves the payload as it is.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => frame.push(0x80 | length),
        _ => {
            let length = u16::try_from(payload.len()).expect("a small payload");
            frame.push(0x80 | 126);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The head of a frame with a length of 64 bits, and a few bytes of its payload.
fn claimed(length: u64) -> Vec<u8> {
    let mut frame = vec![BINARY, 0x80 | 127];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 64]);
    frame
}

/// Sends bytes and reads up to the end of the connection. Returns the last bytes of it.
async fn end_after(mut socket: TcpStream, bytes: &[u8]) -> Vec<u8> {
    // The gateway may close before it has read all of it.
    let _ = socket.write_all(bytes).await;
    let mut received = Vec::new();
    let read = timeout(WITHIN, socket.read_to_end(&mut received)).await;
    // A reset ends the connection, too.
    let _ = read.expect("the gateway closes the connection");
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_end_their_connection_only() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let fragments = |count: usize| {
        let first = masked(0x01, &[b'a'; 100]);
        [first, masked(0x00, &[b'a'; 100]).repeat(count)].concat()
    };
    for (name, bytes) in [
        ("a frame without a mask", b"\x81\x02hi".to_vec()),
        ("a frame of 100 MB", claimed(100 << 20)),
        ("a frame of 16 EiB", claimed(u64::MAX)),
        (
            "a text that is longer than allowed",
            masked(TEXT, &[b'a'; 5_000]),
        ),
        ("fragments that are longer than allowed", fragments(60)),
        ("a fragment of nothing", masked(0x80, b"a")),
        (
            "a text in the middle of another",
            [fragments(1), masked(TEXT, b"a")].concat(),
        ),
        ("a ping that is too long", masked(PING, &[0; 126])),
        ("a ping in fragments", masked(0x09, b"a")),
        ("an unknown opcode", masked(0x83, b"a")),
        ("an unknown control frame", masked(0x8b, b"a")),
        ("a reserved bit", masked(0xc1, b"a")),
        ("a text that is no UTF-8", masked(TEXT, b"\xc0\xaf")),
        ("a code of one byte", masked(CLOSE, b"\x03")),
        (
            "HTTP requests",
            request("GET", "/problems/gone", &[], b"").repeat(2),
        ),
    ] {
        let socket = websocket(&gateway).await;
        let began = Instant::now();
        let received = end_after(socket, &bytes).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{name}: {:?}",
            began.elapsed()
        );
        let text = String::from_utf8_lossy(&received);
        assert!(!text.contains("HTTP/1.1 200"), "{name}: {text}");
        let other = gateway
            .send(request("GET", "/problems/gone", &[], b""))
            .await;
        assert_eq!(other.status, 200, "after {name}: {}", other.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_a_message_is_told_why_it_ends() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    for first in [TEXT, BINARY] {
        let socket = websocket(&gateway).await;
        let received = end_after(socket, &masked(first, b"hello")).await;
        // A close frame with the code 1003.
        let is_told = received
            .windows(4)
            .any(|bytes| bytes == [CLOSE, 2, 0x03, 0xeb]);
        assert!(is_told, "{:?}", String::from_utf8_lossy(&received));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_the_protocol_is_told_that_it_ends() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    for (name, bytes) in [
        (
            "a text that is longer than allowed",
            masked(TEXT, &[b'a'; 5_000]),
        ),
        ("a frame without a mask", b"\x81\x02hi".to_vec()),
        ("a text that is no UTF-8", masked(TEXT, b"\xc0\xaf")),
        ("a fragment of nothing", masked(0x80, b"a")),
    ] {
        let received = end_after(websocket(&gateway).await, &bytes).await;
        // A close frame with the code 1003.
        let is_told = received
            .windows(4)
            .any(|bytes| bytes == [CLOSE, 2, 0x03, 0xeb]);
        assert!(is_told, "{name}: {:?}", String::from_utf8_lossy(&received));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_pings_is_answered_and_ends_by_a_close() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let (mut reads, mut writes) = websocket(&gateway).await.into_split();
    let flood = tokio::spawn(async move {
        let pings = masked(PING, &[b'p'; 125]).repeat(100);
        for _ in 0..100 {
            writes.write_all(&pings).await.expect("it is open");
        }
        let close = masked(CLOSE, &1000_u16.to_be_bytes());
        writes.write_all(&close).await.expect("it is open");
        writes
    });
    let mut received = Vec::new();
    let read = timeout(WITHIN, reads.read_to_end(&mut received)).await;
    read.expect("the gateway closes the connection")
        .expect("it closes in order");
    flood.await.expect("every ping was taken");
    let is_closed = received
        .windows(4)
        .any(|bytes| bytes == [CLOSE, 2, 0x03, 0xe8]);
    assert!(is_closed, "the close is answered");
}
