//! The answer to accepted events, and its form in the store and over HTTP.

use crate::http::{Problem, ProblemKind, RequestContext, percent_encoded};
use crate::store::StoredAnswer;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The header that marks the answer of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

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
        format!(
            "/events/{}?source={}",
            percent_encoded(&self.id),
            percent_encoded(&self.source)
        )
    }
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
    /// The answer to keep.
    stored: StoredAnswer,
}

impl PostAnswer {
    /// The answer to events that were not accepted before.
    pub(super) fn new(
        events: Vec<PostedEvent>,
        form: AnswerForm,
        context: &RequestContext,
    ) -> Result<Self, Problem> {
        let mut bodies: Vec<_> = events.iter().map(EventBody::of).collect();
        let mut headers = vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("traceparent".to_owned(), context.trace.traceparent.clone()),
        ];
        let described = match (form, bodies.pop()) {
            (AnswerForm::One, Some(body)) if bodies.is_empty() => {
                headers.push(("location".to_owned(), body.status.clone()));
                Described::One(body)
            }
            (_, last) => {
                bodies.extend(last);
                Described::List { events: bodies }
            }
        };
        let body = Body {
            described,
            trace_id: context.trace_id().to_owned(),
            worker: context.worker.to_string(),
        };
        let json = serde_json::to_vec(&body).map_err(|_| unreadable())?;
        Ok(Self {
            events,
            trace_id: body.trace_id,
            worker: body.worker,
            repeated: None,
            stored: StoredAnswer {
                status: StatusCode::ACCEPTED.as_u16(),
                headers,
                body: Bytes::from(json),
            },
        })
    }

    /// The answer to a repetition of the request that had this answer.
    pub(super) fn of_repetition(stored: StoredAnswer) -> Result<Self, Problem> {
        let body: Body = serde_json::from_slice(&stored.body).map_err(|_| unreadable())?;
        let bodies = match body.described {
            Described::One(body) => vec![body],
            Described::List { events } => events,
        };
        let event = |body: EventBody| PostedEvent::new(body.id, body.source, body.ty, body.key);
        let events = bodies.into_iter().map(event);
        Ok(Self {
            events: events.collect(),
            trace_id: body.trace_id,
            worker: body.worker,
            repeated: Some(stored.clone()),
            stored,
        })
    }

    /// The answer to keep, and to send.
    pub(super) fn stored(&self) -> &StoredAnswer {
        &self.stored
    }
}

impl IntoResponse for PostAnswer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.stored.status).unwrap_or(StatusCode::ACCEPTED);
        let mut response = Response::new(axum::body::Body::from(self.stored.body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(HEADERS);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in &self.stored.headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if self.repeated.is_some() {
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    #[serde(flatten)]
    described: Described,
    #[serde(rename = "traceId")]
    trace_id: String,
    worker: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Described {
    One(EventBody),
    List { events: Vec<EventBody> },
}

#[derive(Serialize, Deserialize)]
struct EventBody {
    id: String,
    source: String,
    #[serde(rename = "type")]
    ty: String,
    key: String,
    status: String,
}

impl EventBody {
    fn of(event: &PostedEvent) -> Self {
        Self {
            id: event.id.clone(),
            source: event.source.clone(),
            ty: event.ty.clone(),
            key: event.key.clone(),
            status: event.status_path(),
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
    use serde_json::{Value, json};

    fn context() -> RequestContext {
        let context = RequestContext::from_headers(&HeaderMap::new(), "gateway-1".into());
        context.expect("no deadline")
    }

    fn event(id: &str) -> PostedEvent {
        PostedEvent::new(
            id.to_owned(),
            "/callers/web".to_owned(),
            "bank.opened.v1".to_owned(),
            "account-1".to_owned(),
        )
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
        let context = context();
        for (events, form) in [
            (vec![event("a")], AnswerForm::One),
            (vec![event("a")], AnswerForm::List),
            (vec![event("a"), event("b")], AnswerForm::List),
        ] {
            let first = PostAnswer::new(events, form, &context).expect("an answer");
            let again = PostAnswer::of_repetition(first.stored().clone()).expect("an answer");
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
        let one = PostAnswer::new(vec![event("a")], AnswerForm::One, &context());
        let list = PostAnswer::new(vec![event("a")], AnswerForm::List, &context());
        let (one, list) = (one.expect("an answer"), list.expect("an answer"));
        let body: Value = serde_json::from_slice(&one.stored().body).expect("JSON");
        assert_eq!(body["status"], "/events/a?source=%2Fcallers%2Fweb");
        assert_eq!(body["traceId"], one.trace_id);
        let listed: Value = serde_json::from_slice(&list.stored().body).expect("JSON");
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
