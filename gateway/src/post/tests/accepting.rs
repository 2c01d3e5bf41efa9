//! Rights, schemas, repetitions and failures, as every protocol has them.

use super::*;
use crate::http::ProblemKind;
use crate::post::NewEvent;
use axum::body::Bytes;
use axum::http::HeaderValue;
use serde_json::value::RawValue;
use std::time::Duration;

fn event(ty: &str, data: &str) -> NewEvent {
    let data = RawValue::from_string(data.to_owned()).expect("JSON");
    NewEvent::new(ty, data).with_pointer("/data")
}

fn opened(account: &str) -> NewEvent {
    event(OPENED, &json!({"account": account}).to_string())
}

impl Gateway {
    async fn accept(&self, events: Vec<NewEvent>) -> Result<(), (ProblemKind, Vec<String>)> {
        let answer = self
            .posting
            .accept(&caller(), &context(), events, None)
            .await;
        answer.map(drop).map_err(|problem| {
            let pointers = problem.errors.into_iter().map(|error| error.pointer);
            (problem.kind, pointers.collect())
        })
    }
}

#[tokio::test]
async fn types_and_sources_are_those_of_the_caller() {
    let gateway = Gateway::new();
    for (event, kind, pointer) in [
        (
            event("bank.unknown.v1", "{}"),
            ProblemKind::NotFound,
            "/type",
        ),
        // In the catalogue, but not to be posted: the same as unknown.
        (
            event("bank.internal.v1", "{}"),
            ProblemKind::NotFound,
            "/type",
        ),
        (
            event("shop.secret.v1", "{}"),
            ProblemKind::Forbidden,
            "/type",
        ),
        (
            opened("a").with_source("/callers/other".to_owned()),
            ProblemKind::Forbidden,
            "/source",
        ),
        (
            opened("a").with_source(String::new()),
            ProblemKind::Forbidden,
            "/source",
        ),
    ] {
        let refused = gateway.accept(vec![event]).await;
        assert_eq!(refused, Err((kind, vec![pointer.to_owned()])));
    }
    let own = opened("a").with_source("/callers/web".to_owned());
    assert_eq!(gateway.accept(vec![own]).await, Ok(()));
    assert_eq!(gateway.accepted().len(), 1);
}

#[tokio::test]
async fn a_request_has_one_to_a_hundred_events() {
    let gateway = Gateway::new();
    for (count, expected) in [
        (0, Err(ProblemKind::Malformed)),
        (100, Ok(())),
        (101, Err(ProblemKind::TooLarge)),
    ] {
        let events = vec![opened("a"); count];
        let accepted = gateway.accept(events).await.map_err(|(kind, _)| kind);
        assert_eq!(accepted, expected, "{count}");
    }
}

#[tokio::test]
async fn every_invalid_event_is_named_up_to_fifty() {
    let gateway = Gateway::new();
    let invalid = |index: usize| event(OPENED, "{}").with_pointer(format!("/{index}/data"));
    let mut events: Vec<_> = (0..60).map(invalid).collect();
    events[1] = opened("a").with_pointer("/1/data");
    let (kind, pointers) = gateway.accept(events).await.expect_err("59 are invalid");
    assert_eq!((kind, pointers.len()), (ProblemKind::InvalidEvent, 50));
    assert_eq!(pointers[..2], ["/0/data/account", "/2/data/account"]);
    assert_eq!(gateway.accepted().len(), 0);
}

#[tokio::test]
async fn records_have_the_route_the_key_and_the_trace() {
    let gateway = Gateway::new();
    gateway
        .accept(vec![opened("a-1").with_id("1".to_owned())])
        .await
        .expect("valid");
    let accepted = gateway.accepted().remove(0);
    assert_eq!((accepted.id.as_str(), accepted.ty.as_str()), ("1", OPENED));
    assert_eq!(accepted.source, "/callers/web");
    let record = accepted.record;
    assert_eq!(record.topic, "bank.accounts");
    assert_eq!(record.key.as_deref(), Some(&b"a-1"[..]));
    assert_eq!(record.partition, None);
    let traceparent = record.headers.last("traceparent").expect("a trace");
    let traceparent = std::str::from_utf8(traceparent).expect("a text");
    assert_eq!(traceparent[..35], TRACEPARENT[..35]);
    assert_ne!(traceparent, TRACEPARENT);
}

#[tokio::test]
async fn large_data_is_validated_too() {
    let gateway = Gateway::new();
    let filler = vec![json!({}); 200_000];
    let large = |account: Value| {
        event(
            OPENED,
            &json!({"account": account, "filler": filler}).to_string(),
        )
    };
    assert_eq!(gateway.accept(vec![large(json!("a"))]).await, Ok(()));
    let refused = gateway.accept(vec![large(json!(7))]).await;
    let expected = (ProblemKind::InvalidEvent, vec!["/data/account".to_owned()]);
    assert_eq!(refused, Err(expected));
}

#[tokio::test]
async fn a_repetition_gets_the_first_answer() {
    let gateway = Gateway::new();
    let path = format!("/events/{OPENED}");
    let data = r#"{"account":"a-1"}"#;
    let key = [("idempotency-key", "\"k-1\"")];
    let first = gateway.post(&path, JSON, &key, data).await;
    assert_eq!(first.status, 202);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    assert_eq!(
        first.headers["location"],
        first.body["status"].as_str().expect("a path")
    );
    assert_eq!(first.body["worker"], "gateway-1");
    assert_eq!(first.body["traceId"], TRACEPARENT[3..35]);
    // Unquoted, the key is the same.
    let again = gateway
        .post(&path, JSON, &[("idempotency-key", "k-1")], data)
        .await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["traceparent"], first.headers["traceparent"]);
    assert_eq!(gateway.accepted().len(), 1);

    for (headers, body) in [
        (&key[..], r#"{"account":"a-2"}"#),
        (&[key[0], ("ce-id", "other")][..], data),
    ] {
        let reused = gateway.post(&path, JSON, headers, body).await;
        assert_eq!(reused.status, 422, "{reused:?}");
    }
    let other = gateway
        .post(&path, JSON, &[("idempotency-key", "k-2")], data)
        .await;
    assert_eq!(other.status, 202);
    assert_eq!(gateway.accepted().len(), 2);
}

#[tokio::test]
async fn the_same_event_has_the_same_fingerprint() {
    let gateway = Gateway::new();
    let closed = |data: &str| event("bank.closed.v1", data);
    for event in [
        event(OPENED, r#"{"account":"a","cents":1}"#),
        event(OPENED, r#"{"cents":1, "account":"\u0061"}"#),
        event(OPENED, r#"{"account":"a","cents":2}"#),
        closed(r#"{"account":"a","cents":1}"#),
    ] {
        gateway.accept(vec![event]).await.expect("valid");
    }
    let prints: Vec<_> = gateway
        .accepted()
        .iter()
        .map(|event| event.fingerprint)
        .collect();
    assert_eq!(prints[0], prints[1]);
    assert_ne!(prints[0], prints[2]);
    assert_ne!(prints[0], prints[3]);
}

#[tokio::test]
async fn failures_of_the_store_are_problems() {
    let gone = || Box::new(std::io::Error::other("disk"));
    for (failure, status, has_retry) in [
        (AcceptError::InProgress, 409, true),
        (AcceptError::NoIdentities, 501, false),
        (
            AcceptError::Full {
                retry_after: Some(Duration::from_secs(7)),
            },
            503,
            true,
        ),
        (AcceptError::DeadlineExceeded, 504, false),
        (AcceptError::Rejected("too large".to_owned()), 413, false),
        (
            AcceptError::Unavailable {
                doing: "the write",
                source: gone(),
            },
            503,
            true,
        ),
        (AcceptError::Unknown { source: gone() }, 504, false),
    ] {
        let gateway = Gateway::new();
        *gateway.store.failure.lock().expect("not poisoned") = Some(failure);
        let path = format!("/events/{OPENED}");
        let answer = gateway.post(&path, JSON, &[], r#"{"account":"a-1"}"#).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(
            answer.headers.contains_key("retry-after"),
            has_retry,
            "{answer:?}"
        );
        assert!(!answer.body.to_string().contains("disk"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_route_without_its_middleware_is_a_defect() {
    let bare = router(Gateway::new().posting);
    let request = Request::post("/events")
        .body(Body::empty())
        .expect("a request");
    let response = bare.oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 500);
}

/// The buffer from which the head of a request was read: its values are parts of it.
struct HeadBuffer(Arc<str>);

impl AsRef<[u8]> for HeadBuffer {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[tokio::test]
async fn the_head_of_a_request_is_not_kept_while_the_store_works() {
    let gateway = Gateway::new();
    let text: Arc<str> = "e-1".into();
    let buffer = Bytes::from_owner(HeadBuffer(Arc::clone(&text)));
    let id = HeaderValue::from_maybe_shared(buffer).expect("a header value");
    let on_accept = move || assert_eq!(Arc::strong_count(&text), 1, "the head is kept");
    *gateway.store.on_accept.lock().expect("not poisoned") = Some(Box::new(on_accept));
    let request = Request::post(format!("/events/{OPENED}"))
        .header("content-type", JSON)
        .header("ce-id", id)
        .body(Body::from(r#"{"account": "a"}"#));
    let answer = gateway.send(request.expect("a request")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(gateway.accepted()[0].id, "e-1");
}
