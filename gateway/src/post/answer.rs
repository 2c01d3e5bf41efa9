//! The answer to accepted events, and its form in the store and over HTTP.

use crate::http::{Problem, ProblemKind, RequestContext, push_percent_encoded};
use crate::store::{AcceptedEvent, StoredAnswer};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The header that marks the answer of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The media type of the body.
const CONTENT_TYPE: &str = "application/json";
/// The usual bytes of an event in the body: room for it is made at once.
const EVENT_BYTES: usize = 384;

/// The headers of an answer, with those that middlewares add: room for all is made at once.
const HEADERS: usize = 12;

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostedEvent {
    /// Its id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Its type.
    pub ty: String,
    /// The key of its record: events with the same key keep their order.
    pub key: String,
}

impl PostedEvent {
    pub(super) fn new(id: String, source: String, ty: String, key: String) -> Self {
        Self {
            id,
            source,
            ty,
            key,
        }
    }

    /// The path and query of its status: `/events/{id}?source=…`.
    ///
    /// Everything but letters, digits and `-._~` is percent-encoded.
    pub fn status_path(&self) -> String {
        status_path(&self.id, &self.source)
    }
}

impl From<&AcceptedEvent> for PostedEvent {
    fn from(event: &AcceptedEvent) -> Self {
        let (id, source, ty) = (event.id.clone(), event.source.clone(), event.ty.clone());
        Self::new(id, source, ty, key_of(event).into_owned())
    }
}

fn status_path(id: &str, source: &str) -> String {
    const PARTS: [&str; 2] = ["/events/", "?source="];
    // Each byte that is encoded takes three.
    let encoded = id.len() + 3 * source.len();
    let mut path = String::with_capacity(PARTS[0].len() + PARTS[1].len() + encoded);
    for (part, text) in PARTS.into_iter().zip([id, source]) {
        path.push_str(part);
        push_percent_encoded(&mut path, text);
    }
    path
}

fn key_of(event: &AcceptedEvent) -> Cow<'_, str> {
    String::from_utf8_lossy(event.record.key.as_deref().unwrap_or_default())
}

/// Whether the answer names one event, or a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerForm {
    One,
    List,
}

/// The answer to accepted events: 202, and the same for a repetition of the request.
///
/// Over HTTP its body is `{"id", "source", "type", "key", "status", "traceId", "worker"}`, or for a batch
/// `{"events": [{"id", "source", "type", "key", "status"}, …], "traceId", "worker"}`. `Location` is the
/// path of the event's status, `status` in the body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostAnswer {
    /// The events, in the order of the request. For a repetition: those of the first request.
    pub events: Vec<PostedEvent>,
    /// The trace id of the request that was accepted: for a repetition, of the first one.
    pub trace_id: String,
    /// The gateway that accepted it.
    pub worker: String,
    /// The answer of the first request, if this one is a repetition of it.
    pub repeated: Option<StoredAnswer>,
    http: HttpAnswer,
}

impl PostAnswer {
    /// The answer that is sent over HTTP as this one. `events` are those of the request: for a
    /// repetition, those of the first one are read from its answer.
    pub(super) fn new(
        events: Vec<PostedEvent>,
        http: HttpAnswer,
        context: &RequestContext,
    ) -> Result<Self, Problem> {
        match http {
            HttpAnswer::Repeated(stored) => Self::of_repetition(stored),
            HttpAnswer::New(_) => Ok(Self {
                events,
                trace_id: context.trace_id().to_owned(),
                worker: context.worker.to_string(),
                repeated: None,
                http,
            }),
        }
    }

    /// The answer to a repetition of the request that had this answer.
    pub(super) fn of_repetition(stored: StoredAnswer) -> Result<Self, Problem> {
        let body: Body<'_> = serde_json::from_slice(&stored.body).map_err(|_| unreadable())?;
        let bodies = match body.described {
            Described::One(body) => vec![body],
            Described::List { events } => events,
        };
        let event = |body: EventBody<'_>| {
            let [id, source, ty, key] =
                [body.id, body.source, body.ty, body.key].map(Cow::into_owned);
            PostedEvent::new(id, source, ty, key)
        };
        Ok(Self {
            events: bodies.into_iter().map(event).collect(),
            trace_id: body.trace_id.into_owned(),
            worker: body.worker.into_owned(),
            repeated: Some(stored.clone()),
            http: HttpAnswer::Repeated(stored),
        })
    }

    /// The answer as it is sent over HTTP.
    pub(super) fn into_http(self) -> HttpAnswer {
        self.http
    }
}

impl IntoResponse for PostAnswer {
    fn into_response(self) -> Response {
        self.http.into_response()
    }
}

/// An answer as it is sent over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HttpAnswer {
    /// To events that were not accepted before.
    New(WrittenAnswer),
    /// To a repetition of the request that had this answer.
    Repeated(StoredAnswer),
}

/// The answer to events that were not accepted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenAnswer {
    location: Option<String>,
    traceparent: String,
    body: Bytes,
}

impl WrittenAnswer {
    /// Writes the answer to these events.
    pub(super) fn new(
        events: &[AcceptedEvent],
        form: AnswerForm,
        context: &RequestContext,
    ) -> Result<Self, Problem> {
        let described = match (form, events) {
            (AnswerForm::One, [event]) => Described::One(EventBody::from(event)),
            _ => Described::List {
                events: events.iter().map(EventBody::from).collect(),
            },
        };
        let body = Body {
            described,
            trace_id: Cow::Borrowed(context.trace_id()),
            worker: Cow::Borrowed(&*context.worker),
        };
        let mut json = Vec::with_capacity(EVENT_BYTES * events.len());
        serde_json::to_writer(&mut json, &body).map_err(|_| unreadable())?;
        let location = match body.described {
            Described::One(event) => Some(event.status.into_owned()),
            Described::List { .. } => None,
        };
        Ok(Self {
            location,
            traceparent: context.trace.traceparent.clone(),
            body: Bytes::from(json),
        })
    }

    /// The answer to keep for a repetition of the request.
    pub(super) fn to_stored(&self) -> StoredAnswer {
        let mut headers = vec![
            ("content-type".to_owned(), CONTENT_TYPE.to_owned()),
            ("traceparent".to_owned(), self.traceparent.clone()),
        ];
        if let Some(location) = &self.location {
            headers.push(("location".to_owned(), location.clone()));
        }
        StoredAnswer {
            status: StatusCode::ACCEPTED.as_u16(),
            headers,
            body: self.body.clone(),
        }
    }
}

impl IntoResponse for HttpAnswer {
    fn into_response(self) -> Response {
        match self {
            Self::New(written) => written.into_response(),
            Self::Repeated(stored) => repeated(stored),
        }
    }
}

impl IntoResponse for WrittenAnswer {
    fn into_response(self) -> Response {
        let mut response = response(StatusCode::ACCEPTED, self.body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        let values = [
            (TRACEPARENT, Some(self.traceparent)),
            (header::LOCATION, self.location),
        ];
        for (name, value) in values {
            if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
                headers.insert(name, value);
            }
        }
        response
    }
}

fn repeated(stored: StoredAnswer) -> Response {
    let status = StatusCode::from_u16(stored.status).unwrap_or(StatusCode::ACCEPTED);
    let mut response = response(status, stored.body);
    let headers = response.headers_mut();
    for (name, value) in &stored.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// A response with room for all headers, of which it has the first.
fn response(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(axum::body::Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    #[serde(flatten)]
    described: Described<'a>,
    #[serde(rename = "traceId")]
    trace_id: Cow<'a, str>,
    worker: Cow<'a, str>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Described<'a> {
    One(EventBody<'a>),
    List { events: Vec<EventBody<'a>> },
}

/// An event in the body of an answer.
#[derive(Serialize, Deserialize)]
struct EventBody<'a> {
    id: Cow<'a, str>,
    source: Cow<'a, str>,
    #[serde(rename = "type")]
    ty: Cow<'a, str>,
    key: Cow<'a, str>,
    status: Cow<'a, str>,
}

impl<'a> From<&'a AcceptedEvent> for EventBody<'a> {
    fn from(event: &'a AcceptedEvent) -> Self {
        Self {
            id: Cow::Borrowed(&event.id),
            source: Cow::Borrowed(&event.source),
            ty: Cow::Borrowed(&event.ty),
            key: key_of(event),
            status: Cow::Owned(status_path(&event.id, &event.source)),
        }
    }
}

/// A defect: the answer is made of texts, and stored answers are made here.
fn unreadable() -> Problem {
    let detail = "the answer could not be written or read; the events may have been accepted";
    Problem::new(ProblemKind::Internal, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderMap;
    use evenkeel::event::{Headers, OutgoingRecord};
    use serde_json::{Value, json};

    fn context() -> RequestContext {
        let context = RequestContext::from_headers(&HeaderMap::new(), "gateway-1".into());
        context.expect("no deadline")
    }

    fn event(id: &str) -> AcceptedEvent {
        let record = OutgoingRecord {
            topic: "bank.accounts".to_owned(),
            partition: None,
            key: Some(Bytes::from_static(b"account-1")),
            value: None,
            headers: Headers::new(),
            timestamp_ms: None,
        };
        AcceptedEvent {
            source: "/callers/web".to_owned(),
            id: id.to_owned(),
            ty: "bank.opened.v1".to_owned(),
            fingerprint: [0; 32],
            record,
        }
    }

    /// The answer to events that were not accepted before.
    fn answer(events: &[AcceptedEvent], form: AnswerForm) -> PostAnswer {
        let context = context();
        let written = WrittenAnswer::new(events, form, &context).expect("an answer");
        let posted = events.iter().map(PostedEvent::from).collect();
        PostAnswer::new(posted, HttpAnswer::New(written), &context).expect("an answer")
    }

    fn stored(answer: &PostAnswer) -> StoredAnswer {
        match &answer.http {
            HttpAnswer::New(written) => written.to_stored(),
            HttpAnswer::Repeated(stored) => stored.clone(),
        }
    }

    #[test]
    fn any_id_and_source_fit_into_a_url() {
        for (id, source, expected) in [
            ("a-1", "/web", "/events/a-1?source=%2Fweb"),
            (
                "partition:1/offset:23",
                "/kafka#topic",
                "/events/partition%3A1%2Foffset%3A23?source=%2Fkafka%23topic",
            ),
            (
                "a b?c=d&e+f%",
                "é",
                "/events/a%20b%3Fc%3Dd%26e%2Bf%25?source=%C3%A9",
            ),
        ] {
            let event = PostedEvent::new(
                id.to_owned(),
                source.to_owned(),
                "t".to_owned(),
                "k".to_owned(),
            );
            let path = event.status_path();
            assert_eq!(path, expected);
            let uri: axum::http::Uri = path.parse().expect("a URL");
            assert_eq!(
                uri.path(),
                &expected[..expected.find('?').expect("a query")]
            );
        }
    }

    #[test]
    fn a_repetition_has_the_first_answer() {
        for (events, form) in [
            (vec![event("a")], AnswerForm::One),
            (vec![event("a")], AnswerForm::List),
            (vec![event("a"), event("b")], AnswerForm::List),
        ] {
            let first = answer(&events, form);
            let again = PostAnswer::of_repetition(stored(&first)).expect("an answer");
            assert_eq!(again.events, first.events);
            assert_eq!(
                (&again.trace_id, &again.worker),
                (&first.trace_id, &first.worker)
            );
            let (first, again) = (first.into_response(), again.into_response());
            assert_eq!(first.status(), 202);
            assert_eq!(again.status(), 202);
            let mut headers = first.headers().clone();
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
            assert_eq!(again.headers(), &headers);
        }
    }

    #[test]
    fn a_list_has_no_location() {
        let one = answer(&[event("a")], AnswerForm::One);
        let list = answer(&[event("a")], AnswerForm::List);
        let body: Value = serde_json::from_slice(&stored(&one).body).expect("JSON");
        assert_eq!(body["status"], "/events/a?source=%2Fcallers%2Fweb");
        assert_eq!(body["traceId"], one.trace_id);
        let listed: Value = serde_json::from_slice(&stored(&list).body).expect("JSON");
        let status = &body["status"];
        let event = json!({
            "id": "a", "source": "/callers/web", "type": "bank.opened.v1", "key": "account-1",
            "status": status,
        });
        assert_eq!(listed["events"], json!([event]));
        assert_eq!(
            one.into_response().headers()["location"],
            "/events/a?source=%2Fcallers%2Fweb"
        );
        assert!(!list.into_response().headers().contains_key("location"));
    }

    #[test]
    fn a_damaged_stored_answer_is_an_internal_problem() {
        let body = Bytes::from_static(b"{}");
        let stored = StoredAnswer {
            status: 202,
            headers: Vec::new(),
            body,
        };
        let problem = PostAnswer::of_repetition(stored).expect_err("no events");
        assert_eq!(problem.kind, ProblemKind::Internal);
    }
}
