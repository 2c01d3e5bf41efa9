//! Hostile requests on a real socket, TLS, and a stop that loses nothing.
//!
//! - `balancers`: behind HAProxy, nginx and Envoy, a kill and a drain lose nothing
//! - `browser`: pages of other origins in Chromium
//! - `early_answers`: a refusal reaches a client that still sends
//! - `hostile`: heads that two programs read differently, floods, and broken frames
//! - `odd_requests`: what clients of other bridges send
//! - `openapi`: the description of the interface names the routes and problems that exist

mod balancers;
mod browser;
mod early_answers;
mod hostile;
mod odd_requests;
mod openapi;

use crate::support::{
    Answer, ORDER, TestGateway, WITHIN, WORKER, mock_kafka, post, read_answer, request,
};
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::{Certificate, ChildProcess, eventually, read_topic, required};
use evenkeel_gateway::server::{
    BodyLimits, ConnectionLimits, GatewaySettings, StopSettings, TlsFiles,
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const PLACED: &str = "shop.order-placed.v1";
const TOPIC: &str = "shop.orders";

/// A Kafka that nobody needs: these requests are answered without it.
fn no_kafka() -> KafkaConfig {
    KafkaConfig::new("127.0.0.1:1")
}

/// A gateway with short bounds, so that a test need not wait for long.
async fn impatient() -> TestGateway {
    TestGateway::start_with(&no_kafka(), |settings| {
        let limits = ConnectionLimits::default()
            .with_head_within(Duration::from_millis(300))
            .with_idle_max(Duration::from_millis(900));
        let body = BodyLimits::default().with_within(Duration::from_millis(300));
        settings.with_connections(limits).with_body(body)
    })
    .await
}

/// Sends bytes that are no complete request, and waits for the end of the connection. Returns the
/// answer and the time that it took.
async fn cut(gateway: &TestGateway, bytes: &[u8]) -> (Answer, Duration) {
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    stream.write_all(bytes).await.expect("it is open");
    let began = Instant::now();
    let answer = read_answer(&mut stream).await;
    (answer, began.elapsed())
}

#[tokio::test]
async fn unfinished_requests_are_cut() {
    let gateway = impatient().await;
    let body = "POST /events/shop.order-placed.v1 HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    for (bytes, expected) in [
        ("GET /openapi.json HTTP/1.1\r\nHost: lo", 0),
        ("G", 0),
        ("", 0),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0),
        (body, 408),
    ] {
        let (answer, took) = cut(&gateway, bytes.as_bytes()).await;
        assert_eq!(answer.status, expected, "{bytes:?}: {}", answer.text);
        assert!(took < Duration::from_secs(5), "{bytes:?}: {took:?}");
    }
}

#[tokio::test]
async fn a_second_request_on_a_connection_has_its_own_time() {
    let gateway = impatient().await;
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    for _ in 0..3 {
        // Longer than the time for a head, shorter than the time between requests.
        tokio::time::sleep(Duration::from_millis(400)).await;
        let request = b"GET /problems/gone HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(request).await.expect("it is open");
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200");
        // The rest is in the buffer by now, or comes with the next read.
        let mut rest = [0; 4096];
        let read = stream.read(&mut rest).await.expect("an answer");
        assert!(read > 0);
    }
}

#[tokio::test]
async fn a_head_behind_another_request_has_its_own_time() {
    // No other bound ends a connection before the client has waited for too long.
    let gateway = TestGateway::start_with(&no_kafka(), |settings| {
        let limits = ConnectionLimits::default().with_head_within(Duration::from_millis(300));
        settings.with_connections(limits)
    })
    .await;
    let read = "GET /problems/gone HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned();
    let posted = format!(
        "POST /events/{PLACED} HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{ORDER}",
        ORDER.len()
    );
    for (first, expected) in [(read, 200), (posted, 202)] {
        let bytes = format!("{first}GET /problems/gone HTTP/1.1\r\nhost: lo");
        let (answer, _) = cut(&gateway, bytes.as_bytes()).await;
        assert_eq!(answer.status, expected, "{}", answer.text);
    }
}

#[tokio::test]
async fn a_thousand_idle_connections_hinder_nobody() {
    let gateway = TestGateway::start_with(&no_kafka(), |settings| {
        settings.with_connections(ConnectionLimits::default().with_connections_max(500))
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(
            TcpStream::connect(gateway.address)
                .await
                .expect("a connection"),
        );
    }
    let began = Instant::now();
    let answer = gateway
        .send(request("GET", "/openapi.json", &[], b""))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let is_closed = |stream: &TcpStream| {
        let mut byte = [0];
        matches!(stream.try_read(&mut byte), Ok(0))
    };
    let closed = || async {
        let closed = held.iter().filter(|stream| is_closed(stream)).count();
        (closed >= 500).then_some(())
    };
    eventually("the longest idle ones made room", WITHIN, closed).await;
}

/// A request, and the status of its answer.
type Case = (Vec<u8>, u16);

fn hostile() -> Vec<Case> {
    let preflight = ("access-control-request-method", "POST");
    let long = "x".repeat(5_000);
    let bomb = "x".repeat(32 << 10);
    let many: Vec<_> = (0..200).map(|_| ("x-many", "y")).collect();
    let huge = "POST /events/shop.order-placed.v1 HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 104857600\r\n\r\n{";
    let get = |target: &str| request("GET", target, &[], b"");
    vec![
        (huge.as_bytes().to_vec(), 413),
        (
            request("GET", "/openapi.json", &[("x-bomb", bomb.as_str())], b""),
            431,
        ),
        (request("GET", "/openapi.json", &many, b""), 431),
        (get(&format!("/events/{long}")), 414),
        (get(&format!("/events?type={long}")), 414),
        (post(PLACED, &[], b"\xff\xfe{}"), 400),
        (post(PLACED, &[], b"{"), 400),
        (get("/events/.."), 404),
        (get("/events/%2e%2e/openapi.json"), 404),
        (get("//openapi.json"), 404),
        (get("/problems%2fgone"), 404),
        (get("/no-such-route"), 404),
        (request("DELETE", "/openapi.json", &[], b""), 405),
        (get("/events?type=x&access_token=a-secret-token"), 400),
        (get("/events/x?token=a-secret-token"), 400),
        (
            post(
                PLACED,
                &[("origin", "https://evil.example.org")],
                ORDER.as_bytes(),
            ),
            403,
        ),
        (
            post(
                PLACED,
                &[("sec-fetch-site", "cross-site")],
                ORDER.as_bytes(),
            ),
            403,
        ),
        (request("OPTIONS", "/events", &[preflight], b""), 403),
        (
            request(
                "GET",
                "/openapi.json",
                &[("x-request-timeout", "soon")],
                b"",
            ),
            400,
        ),
        (b"NONSENSE\r\n\r\n".to_vec(), 400),
    ]
}

#[tokio::test]
async fn hostile_requests_get_a_quick_refusal() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for (request, expected) in hostile() {
        let start: String = String::from_utf8_lossy(&request).chars().take(60).collect();
        let began = Instant::now();
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status, expected, "{start:?}: {}", answer.text);
        assert!(began.elapsed() < Duration::from_secs(5), "{start:?}");
        assert!(
            !answer.text.contains("a-secret-token"),
            "{start:?}: {}",
            answer.text
        );
        // Heads that are no HTTP are refused before any route.
        if !matches!(expected, 431) && !start.starts_with("NONSENSE") {
            let content_type = answer.header("content-type");
            assert_eq!(content_type, Some("application/problem+json"), "{start:?}");
        }
    }
}

#[tokio::test]
async fn every_answer_has_security_headers_and_a_trace() {
    let gateway = TestGateway::start(&no_kafka()).await;
    for target in ["/openapi.json", "/problems/gone", "/no-such-route", "//"] {
        let answer = gateway.send(request("GET", target, &[], b"")).await;
        for (name, expected) in [
            ("x-content-type-options", Some("nosniff")),
            ("cache-control", Some("no-store")),
            ("worker", Some(WORKER)),
            ("server", None),
        ] {
            assert_eq!(answer.header(name), expected, "{target} {name}");
        }
        let trace_id = answer.header("trace-id").unwrap_or_default();
        assert_eq!(trace_id.len(), 32, "{target}: {}", answer.text);
    }
}

#[tokio::test]
async fn forged_headers_of_evenkeel_never_reach_the_record() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let forged = [
        ("evenkeel.parked.group", "forged"),
        ("evenkeel-attempt", "7"),
        ("__dlq.errors.topic", "forged"),
        ("x-forged", "yes"),
        ("baggage", "forged=yes"),
    ];
    let answer = gateway.send(post(PLACED, &forged, ORDER.as_bytes())).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert!(gateway.stopped().await.is_clean());
    let records = read_topic(&kafka.config(), TOPIC, WITHIN).await;
    assert_eq!(records.len(), 1, "the stop published it");
    for (name, value) in records[0].headers.iter() {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value.unwrap_or_default()),
        );
        assert!(
            !name.contains("forged") && !value.contains("forged"),
            "{name}: {value}"
        );
        assert!(!name.starts_with("evenkeel"), "{name}: {value}");
    }
}

#[tokio::test]
async fn tls_serves_the_certificate_of_the_files() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let made = Certificate::in_directory(directory.path()).await;
    let Some(made) = required(made) else { return };
    let files = TlsFiles::new(&made.certificate, &made.key);
    let limits = ConnectionLimits::default().with_handshake_within(Duration::from_millis(300));
    let change = |settings: GatewaySettings| settings.with_tls(files).with_connections(limits);
    let gateway = TestGateway::start_with(&no_kafka(), change).await;
    let request = request("GET", "/problems/gone", &[], b"");
    let mut client = ChildProcess::command("openssl");
    client
        .args([
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-servername",
            "localhost",
        ])
        .args(["-connect", &gateway.address.to_string(), "-CAfile"])
        .arg(&made.certificate);
    let client = ChildProcess::run(client, &request, WITHIN).await;
    assert!(
        client.stdout.starts_with("HTTP/1.1 200"),
        "{}",
        client.stdout
    );
    // Plain text, and a handshake that never comes, end soon.
    for bytes in [&request[..], b""] {
        let (answer, took) = cut(&gateway, bytes).await;
        assert_eq!(answer.status, 0, "{}", answer.text);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}

/// A connection on which the first half of a post was sent.
async fn half_posted(gateway: &TestGateway) -> (TcpStream, Vec<u8>) {
    let mut request = post(PLACED, &[], ORDER.as_bytes());
    let rest = request.split_off(request.len() - 20);
    let mut stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    stream.write_all(&request).await.expect("it is open");
    (stream, rest)
}

#[tokio::test]
async fn a_stop_answers_requests_under_way_and_publishes_them() {
    let kafka = mock_kafka().await;
    let gateway = TestGateway::start(&kafka.config()).await;
    let (mut stream, rest) = half_posted(&gateway).await;
    let idle = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    let address = gateway.address;
    // The gateway must have read the head before it stops.
    tokio::time::sleep(Duration::from_millis(200)).await;
    gateway.stop.cancel();
    let refused = || async { TcpStream::connect(address).await.err() };
    eventually("new connections are refused", WITHIN, refused).await;
    stream.write_all(&rest).await.expect("it is open");
    let answer = read_answer(&mut stream).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    assert!(gateway.stopped().await.is_clean());
    let records = read_topic(&kafka.config(), TOPIC, WITHIN).await;
    assert_eq!(records.len(), 1, "what was accepted is published");
    drop(idle);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_at_the_deadline() {
    let change = |settings: GatewaySettings| {
        settings.with_stop(StopSettings::default().with_within(Duration::from_secs(2)))
    };
    let gateway = TestGateway::start_with(&no_kafka(), change).await;
    let (stream, _) = half_posted(&gateway).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    let report = gateway.stopped().await;
    assert_eq!(report.requests_cut, 1);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    drop(stream);
}

#[tokio::test]
async fn a_gateway_accepts_and_is_ready_without_brokers() {
    let change = |settings: GatewaySettings| {
        settings.with_stop(StopSettings::default().with_within(Duration::from_secs(2)))
    };
    let gateway = TestGateway::start_with(&no_kafka(), change).await;
    let answer = gateway.send(post(PLACED, &[], ORDER.as_bytes())).await;
    assert_eq!(answer.status, 202, "{}", answer.text);
    let not_ready = gateway.health.not_ready();
    assert!(not_ready.is_empty(), "{not_ready:?}");
    let description = reqwest::get(gateway.url("/openapi.json"))
        .await
        .expect("an answer");
    assert_eq!(description.status(), 200);
    assert!(gateway.stopped().await.is_clean(), "no request was cut");
}
