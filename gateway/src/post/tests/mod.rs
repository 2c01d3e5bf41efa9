//! Posting from outside: the routes over a store in memory.
//!
//! `modes.rs` has the modes of the HTTP binding, with requests as clients send them. `accepting.rs`
//! has rights, schemas, repetitions and failures, which every protocol shares.

mod accepting;
mod modes;

use super::{PostLimits, Posting, router};
use crate::access::{AllowList, EventRoute, Principal, Rights};
use crate::http::RequestContext;
use crate::store::{
    AcceptError, AcceptRequest, AcceptStore, Accepted, AcceptedEvent, Backlog, EventPlace,
    StoredAnswer,
};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use axum::{Extension, Router};
use evenkeel::event::decode;
use evenkeel::inbox::BoxFuture;
use evenkeel::schema::Catalogue;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex};
use tower::ServiceExt;

const OPENED: &str = "bank.opened.v1";
const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";
const JSON: &str = "application/json";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SCHEMA: &str = r#"{
    "type": "object",
    "required": ["account"],
    "properties": {
        "account": {"type": "string"},
        "cents": {"type": "integer", "minimum": 0}
    }
}"#;

/// The answer that was given for a key, and the fingerprint of its request.
type KeptAnswer = ([u8; 32], StoredAnswer);

/// A store in memory. It keeps the answers of keys, as the real ones do.
#[derive(Default)]
struct MemoryStore {
    requests: Mutex<Vec<AcceptRequest>>,
    answers: Mutex<BTreeMap<(String, String), KeptAnswer>>,
    /// Fails the next request.
    failure: Mutex<Option<AcceptError>>,
    /// Called when a request comes.
    on_accept: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl MemoryStore {
    fn accept_now(&self, request: AcceptRequest) -> Result<Accepted, AcceptError> {
        if let Some(on_accept) = &*self.on_accept.lock().expect("not poisoned") {
            on_accept();
        }
        if let Some(failure) = self.failure.lock().expect("not poisoned").take() {
            return Err(failure);
        }
        if let Some(claim) = &request.idempotency {
            let id = (claim.principal.clone(), claim.key.clone());
            let mut answers = self.answers.lock().expect("not poisoned");
            if let Some((fingerprint, answer)) = answers.get(&id) {
                return if *fingerprint == claim.fingerprint {
                    Ok(Accepted::Repeated(answer.clone()))
                } else {
                    Err(AcceptError::Reused {
                        what: "the Idempotency-Key".to_owned(),
                    })
                };
            }
            answers.insert(id, (claim.fingerprint, request.answer.clone()));
        }
        self.requests.lock().expect("not poisoned").push(request);
        Ok(Accepted::New)
    }
}

impl AcceptStore for MemoryStore {
    fn accept(&self, request: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>> {
        Box::pin(ready(self.accept_now(request)))
    }

    fn find<'a>(
        &'a self,
        _id: &'a str,
        _source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn backlog(&self) -> Backlog {
        Backlog::default()
    }

    fn keeps_identities(&self) -> bool {
        true
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

/// The routes, for a caller that may post events of `bank.*`.
struct Gateway {
    store: Arc<MemoryStore>,
    posting: Posting,
    router: Router,
}

/// An answer, read.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Gateway {
    fn new() -> Self {
        Self::with_limits(PostLimits::default())
    }

    fn with_limits(limits: PostLimits) -> Self {
        let types = [
            OPENED,
            "bank.closed.v1",
            "bank.internal.v1",
            "shop.secret.v1",
        ];
        let catalogue = Catalogue::from_texts(types.map(|ty| (ty, SCHEMA)));
        let route = |ty| EventRoute::new(ty, "bank.accounts", "account");
        let routes = vec![
            route(OPENED).with_post(true),
            route("bank.closed.v1").with_post(true),
            route("bank.internal.v1").with_stream(true),
            route("shop.secret.v1").with_post(true),
        ];
        let catalogue = Arc::new(catalogue.expect("valid schemas"));
        let allow_list = AllowList::new(routes, catalogue).expect("a valid list");
        let store = Arc::new(MemoryStore::default());
        let port: Arc<dyn AcceptStore> = store.clone();
        let posting = Posting::new(Arc::new(allow_list), port, limits);
        let router = router(posting.clone())
            .layer(Extension(caller()))
            .layer(Extension(context()));
        Self {
            store,
            posting,
            router,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    /// Sends a request with this content type, if any, and these headers.
    async fn post(
        &self,
        path: &str,
        content_type: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::post(path);
        if !content_type.is_empty() {
            request = request.header("content-type", content_type);
        }
        for (name, value) in headers {
            request = request.header(*name, value.as_bytes());
        }
        self.send(request.body(body.into()).expect("a request"))
            .await
    }

    fn accepted(&self) -> Vec<AcceptedEvent> {
        let requests = self.store.requests.lock().expect("not poisoned");
        requests
            .iter()
            .flat_map(|request| request.events.clone())
            .collect()
    }
}

fn caller() -> Principal {
    let rights = Rights {
        post: vec!["bank.*".to_owned()],
        ..Rights::default()
    };
    Principal::new("web", rights)
}

fn context() -> RequestContext {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", TRACEPARENT.parse().expect("a header value"));
    RequestContext::from_headers(&headers, "gateway-1".into()).expect("no deadline")
}

/// An event of a record, as one JSON object: attributes by name, and the text of the data.
fn published(event: &AcceptedEvent) -> Value {
    let record = &event.record;
    let envelope = decode(record.headers.iter(), record.value.as_deref()).expect("an event");
    let attributes = envelope.attributes;
    let data = envelope.data.expect("data");
    let mut json = json!({
        "type": attributes.ty,
        "id": attributes.id,
        "source": attributes.source,
        "subject": attributes.subject,
        "time": attributes.time.map(|time| time.to_string()),
        "datacontenttype": attributes.datacontenttype,
        "data": std::str::from_utf8(&data).expect("UTF-8"),
    });
    for (name, value) in attributes.extensions {
        json[name] = value.into();
    }
    json
}

/// The pointers in a problem, sorted.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut pointers: Vec<_> = errors
        .iter()
        .map(|error| error["pointer"].as_str().expect("a pointer"))
        .collect();
    pointers.sort_unstable();
    pointers
}
