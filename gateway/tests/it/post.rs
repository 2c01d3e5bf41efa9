//! Posting over HTTP to Kafka: the records on the topic are the events of the requests.
//!
//! On the mock cluster in this process, through the store that waits for the brokers.

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use evenkeel::event::decode;
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::schema::Catalogue;
use evenkeel::testing::{KafkaKind, TestKafka, read_topic, unique};
use evenkeel_gateway::access::{AllowList, EventRoute, Principal, Rights};
use evenkeel_gateway::http::add_context;
use evenkeel_gateway::post::{PostLimits, Posting, router};
use evenkeel_gateway::store::BrokerStore;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

const OPENED: &str = "bank.opened.v1";
const SCHEMA: &str = r#"{"type": "object", "required": ["account"]}"#;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const WITHIN: Duration = Duration::from_secs(60);

/// The routes before a topic of their own.
struct Gateway {
    // The cluster ends when it is dropped.
    _cluster: TestKafka,
    kafka: KafkaConfig,
    topic: String,
    router: Router,
}

impl Gateway {
    async fn start(limits: PostLimits) -> Self {
        let cluster = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("a mock cluster");
        let topic = unique("post");
        cluster
            .create_topic(&topic, 3)
            .await
            .expect("the topic is created");
        let kafka = cluster.config();
        let publisher = Publisher::new(&kafka, PublisherSettings::new("/it/gateway"));
        let store = BrokerStore::new(publisher.expect("valid settings"));
        let catalogue = Catalogue::from_texts([(OPENED, SCHEMA)]).expect("a valid schema");
        let route = EventRoute::new(OPENED, topic.as_str(), "account").with_post(true);
        let allow_list = AllowList::new(vec![route], Arc::new(catalogue)).expect("a valid list");
        let posting = Posting::new(Arc::new(allow_list), Arc::new(store), limits);
        let worker: Arc<str> = "gateway-1".into();
        let router = router(posting)
            .layer(Extension(Principal::new("web", Rights::all())))
            .layer(from_fn_with_state(worker, add_context));
        Self {
            _cluster: cluster,
            kafka,
            topic,
            router,
        }
    }

    async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        let body = serde_json::from_slice(&body).expect("JSON");
        (parts.status.as_u16(), parts.headers, body)
    }

    /// The records of the topic, by the id of their event.
    async fn records(&self) -> Vec<(String, LogRecord)> {
        let records = read_topic(&self.kafka, &self.topic, WITHIN).await;
        let with_id = records.into_iter().map(|record| {
            let id = record.headers.last("ce_id").expect("an id").to_vec();
            (String::from_utf8(id).expect("a text"), record)
        });
        with_id.collect()
    }

    /// Serves the routes on a port, until the test ends.
    async fn listen(&self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = self.router.clone();
        tokio::spawn(async move { axum::serve(listener, router).await });
        TcpStream::connect(address).await.expect("a connection")
    }
}

#[tokio::test]
async fn events_of_all_modes_are_on_the_topic() {
    let gateway = Gateway::start(PostLimits::default()).await;
    let json = ("content-type", "application/json");
    let structured = (
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    );
    let batch = ("content-type", "application/cloudevents-batch+json");
    let event = |id: &str, data: &str| {
        let attributes = format!(r#""specversion":"1.0","type":"{OPENED}","id":"{id}""#);
        format!(r#"{{{attributes},"tenant":"north","data":{data}}}"#)
    };
    let data = |account: &str| format!(r#"{{ "account": "{account}", "n": 1.50 }}"#);
    let binary = [
        json,
        ("ce-specversion", "1.0"),
        ("ce-type", OPENED),
        ("ce-id", "b/1"),
    ];
    let of_type = format!("/events/{OPENED}");
    let trace = ("traceparent", TRACEPARENT);
    let list = format!(
        "[{},{}]",
        event("l-1", &data("d")),
        event("l-2", &data("d"))
    );
    for (path, headers, body, ids) in [
        (
            "/events",
            vec![structured, trace],
            event("s-1", &data("a")),
            vec!["s-1"],
        ),
        ("/events", binary.to_vec(), data("b"), vec!["b/1"]),
        (
            of_type.as_str(),
            vec![json, ("ce-id", "t-1")],
            data("c"),
            vec!["t-1"],
        ),
        ("/events", vec![batch], list, vec!["l-1", "l-2"]),
    ] {
        let (status, answer_headers, answer) = gateway.post(path, &headers, body).await;
        assert_eq!(status, 202, "{answer}");
        assert_eq!(answer["worker"], "gateway-1");
        let records = gateway.records().await;
        for id in ids {
            let (_, record) = records.iter().find(|(known, _)| known == id).expect(id);
            let envelope = decode(record.headers.iter(), record.value.as_deref());
            let envelope = envelope.expect("an event");
            assert_eq!(envelope.attributes.ty, OPENED);
            assert_eq!(envelope.attributes.source, "/callers/web");
            let key = String::from_utf8(record.key.clone().expect("a key")).expect("a text");
            assert_eq!(
                envelope.data.as_deref(),
                Some(data(&key).as_bytes()),
                "as it was posted"
            );
            let traceparent = record.headers.last("traceparent").expect("a trace");
            let trace_id = std::str::from_utf8(&traceparent[3..35]).expect("a text");
            assert_eq!(answer["traceId"], trace_id);
            assert_eq!(answer_headers["trace-id"], trace_id);
        }
    }
    let records = gateway.records().await;
    assert_eq!(records.len(), 5, "each event once");
    let of_batch: Vec<_> = records
        .iter()
        .filter(|(id, _)| id.starts_with("l-"))
        .collect();
    assert_eq!(of_batch[0].1.partition, of_batch[1].1.partition);
    assert_eq!(
        (&*of_batch[0].0, &*of_batch[1].0),
        ("l-1", "l-2"),
        "in the batch's order"
    );
    let (_, first) = records
        .iter()
        .find(|(id, _)| id == "s-1")
        .expect("the structured event");
    assert_eq!(first.headers.last("ce_tenant"), Some(&b"north"[..]));
    let traceparent = first.headers.last("traceparent").expect("a trace");
    assert_eq!(
        traceparent[..35],
        TRACEPARENT.as_bytes()[..35],
        "the caller's trace"
    );
}

#[tokio::test]
async fn a_refused_batch_leaves_no_record() {
    let gateway = Gateway::start(PostLimits::default()).await;
    let event = |id: &str, data: Value| json!({"specversion": "1.0", "type": OPENED, "id": id, "data": data});
    let valid = event("1", json!({"account": "a"}));
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let refused = json!([valid, event("2", json!({}))]).to_string();
    let (status, _, problem) = gateway.post("/events", &batch, refused).await;
    assert_eq!(
        (status, &problem["errors"][0]["pointer"]),
        (422, &json!("/1/data/account"))
    );
    let accepted = json!([event("3", json!({"account": "a"}))]).to_string();
    let (status, _, _) = gateway.post("/events", &batch, accepted).await;
    assert_eq!(status, 202);
    let ids: Vec<_> = gateway
        .records()
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids, ["3"]);
}

#[tokio::test]
async fn a_key_without_a_store_for_it_is_refused() {
    let gateway = Gateway::start(PostLimits::default()).await;
    let headers = [
        ("content-type", "application/json"),
        ("idempotency-key", "k-1"),
    ];
    let path = format!("/events/{OPENED}");
    let (status, headers, _) = gateway.post(&path, &headers, r#"{"account":"a"}"#).await;
    assert_eq!(status, 501);
    assert_eq!(headers["content-type"], "application/problem+json");
}

/// Reads from a connection until the text is there.
async fn read_until(stream: &mut TcpStream, read: &mut String, text: &str) {
    let reading = async {
        while !read.contains(text) {
            let mut chunk = [0; 4_096];
            let length = stream.read(&mut chunk).await.expect("an open connection");
            assert!(length > 0, "closed before {text:?}, after {read}");
            read.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    };
    tokio::time::timeout(WITHIN, reading).await.expect(text);
}

#[tokio::test]
async fn a_client_may_wait_for_the_headers_to_be_accepted() {
    let gateway = Gateway::start(PostLimits::default()).await;
    let body = r#"{"account":"a"}"#;
    for (content_type, length, first, last) in [
        (
            "application/json",
            body.len(),
            "HTTP/1.1 100 Continue\r\n",
            "HTTP/1.1 202",
        ),
        (
            "text/plain",
            body.len(),
            "HTTP/1.1 415",
            "unsupported-media-type",
        ),
        ("application/json", 2 << 20, "HTTP/1.1 413", "too-large"),
    ] {
        let mut stream = gateway.listen().await;
        let head = format!(
            "POST /events/{OPENED} HTTP/1.1\r\nhost: gateway\r\nexpect: 100-continue\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream
            .write_all(head.as_bytes())
            .await
            .expect("the head is sent");
        let mut read = String::new();
        read_until(&mut stream, &mut read, first).await;
        assert!(read.starts_with(first), "{read}");
        if first.contains("100") {
            stream
                .write_all(body.as_bytes())
                .await
                .expect("the body is sent");
        }
        read_until(&mut stream, &mut read, last).await;
    }
    assert_eq!(gateway.records().await.len(), 1);
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded() {
    let gateway = Gateway::start(PostLimits::default().with_body_bytes_max(100)).await;
    for (length, status) in [(100, "HTTP/1.1 202"), (101, "HTTP/1.1 413")] {
        let mut stream = gateway.listen().await;
        let data = r#"{"account":"a"}"#;
        let padding = " ".repeat(length - data.len());
        let request = format!(
            "POST /events/{OPENED} HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\
             content-type: application/json\r\n\r\n\
             {:x}\r\n{data}\r\n{:x}\r\n{padding}\r\n0\r\n\r\n",
            data.len(),
            padding.len(),
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let mut read = String::new();
        read_until(&mut stream, &mut read, "\r\n\r\n").await;
        assert!(read.starts_with(status), "{length}: {read}");
    }
}
