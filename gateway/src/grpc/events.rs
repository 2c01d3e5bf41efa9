//! The service `evenkeel.gateway.v1.Events`: messages to the core and back. Decides nothing.

use super::call::Call;
use super::proto::gateway as proto;
use super::watch::{Elements, Step, reconnect, too_slow, watch};
use crate::http::{FieldError, Problem, ProblemKind};
use crate::post::{NewEvent, PostAnswer, Posting};
use crate::status::{StatusQuery, StatusReader};
use crate::stream::{Filter, Frame, StreamStart, StreamedEvent, Streams};
use bytes::Bytes;
use jiff::Timestamp;
use prost::Message;
use proto::frame::Content;
use proto::watch_request::Start;
use serde_json::value::RawValue;
use tonic::{Request, Response, Status};

/// The path of `Post`, which the fingerprint of a request includes.
const POST: &str = "/evenkeel.gateway.v1.Events/Post";

/// The service.
pub(super) struct EventsService {
    pub(super) posting: Posting,
    pub(super) status: StatusReader,
    pub(super) streams: Streams,
}

#[tonic::async_trait]
impl proto::events_server::Events for EventsService {
    async fn post(
        &self,
        request: Request<proto::PostRequest>,
    ) -> Result<Response<proto::PostReply>, Status> {
        let (call, message) = Call::of(request)?;
        let key = call.idempotency_key(POST, &message.encode_to_vec())?;
        let events = new_events(message)?;
        let (principal, context) = (&call.principal, &call.context);
        let answer = self.posting.accept(principal, context, events, key).await?;
        Ok(Response::new(reply(answer)))
    }

    async fn get(
        &self,
        request: Request<proto::GetStatusRequest>,
    ) -> Result<Response<proto::EventStatus>, Status> {
        let (call, message) = Call::of(request)?;
        let proto::GetStatusRequest {
            id,
            source,
            r#type,
            since,
        } = message;
        let since = since.as_deref().map(time).transpose()?;
        let query = StatusQuery {
            source,
            ty: r#type,
            since,
        };
        let status = self
            .status
            .event_for(&call.principal, &call.context, &id, &query)
            .await?;
        Ok(Response::new(status.into()))
    }

    type WatchStream = Elements<proto::Frame>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (call, message) = Call::of(request)?;
        let start = match message.start {
            None | Some(Start::Earliest(false)) => StreamStart::Now,
            Some(Start::Earliest(true)) => StreamStart::Earliest,
            Some(Start::After(cursor)) => StreamStart::After(cursor),
        };
        let filter = Filter {
            types: message.types,
            key: message.key,
        };
        watch(&self.streams, &call, filter, start, frame).await
    }
}

/// The events of a request. Pointers of errors lead to fields of the message.
fn new_events(message: proto::PostRequest) -> Result<Vec<NewEvent>, Problem> {
    let events = message.events.into_iter().enumerate();
    events
        .map(|(index, event)| new_event(event, format!("/events/{index}/data")))
        .collect()
}

fn new_event(event: proto::NewEvent, pointer: String) -> Result<NewEvent, Problem> {
    let data = json(&event.data).map_err(|reason| {
        let error = FieldError {
            pointer: pointer.clone(),
            detail: reason,
        };
        Problem::new(ProblemKind::Malformed, "the data is not JSON").with_errors(vec![error])
    })?;
    let mut posted = NewEvent::new(event.r#type, data)
        .with_id(event.id)
        .with_source(event.source)
        .with_subject(event.subject)
        .with_time(event.time)
        .with_pointer(pointer);
    posted.extensions = event.extensions;
    Ok(posted)
}

/// The text as it is, or the place of its error, without the text.
fn json(data: &Bytes) -> Result<Box<RawValue>, String> {
    let text = std::str::from_utf8(data).map_err(|_| "is not UTF-8".to_owned())?;
    RawValue::from_string(text.to_owned()).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("is not JSON: line {line}, column {column}")
    })
}

fn time(text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|_| {
        let error = FieldError {
            pointer: "/since".to_owned(),
            detail: "is not a time in RFC 3339".to_owned(),
        };
        Problem::new(ProblemKind::Malformed, "the request is malformed").with_errors(vec![error])
    })
}

fn reply(answer: PostAnswer) -> proto::PostReply {
    let events = answer.events.into_iter().map(|event| proto::PostedEvent {
        id: event.id,
        source: event.source,
        r#type: event.ty,
        key: event.key,
    });
    proto::PostReply {
        events: events.collect(),
        replayed: answer.repeated.is_some(),
        trace_id: answer.trace_id,
        worker: answer.worker,
    }
}

/// The message of a frame.
fn frame(frame: Frame) -> Step<proto::Frame> {
    let with = |cursor, content| proto::Frame {
        cursor,
        content: Some(content),
    };
    match frame {
        Frame::Event { cursor, event } => {
            Step::Next(with(cursor, Content::Event(streamed(&event))))
        }
        Frame::Heartbeat { cursor } => {
            Step::Next(with(cursor, Content::Heartbeat(proto::Heartbeat {})))
        }
        Frame::Gap {
            cursor,
            topic,
            partition,
            from,
            to,
        } => {
            let gap = proto::Gap {
                topic: topic.to_string(),
                partition,
                from_offset: from,
                to_offset: to,
            };
            Step::Next(with(cursor, Content::Gap(gap)))
        }
        Frame::Slow { cursor } => Step::Last(
            Some(with(cursor, Content::Slow(proto::Slow {}))),
            too_slow(),
        ),
        Frame::Reconnect { cursor } => Step::Last(
            Some(with(cursor, Content::Reconnect(proto::Reconnect {}))),
            reconnect(),
        ),
        Frame::Failed { problem, .. } => Step::Last(None, problem),
    }
}

fn streamed(event: &StreamedEvent) -> proto::StreamedEvent {
    let position = proto::Position {
        topic: event.topic.to_string(),
        partition: event.partition,
        offset: Some(event.offset),
    };
    proto::StreamedEvent {
        r#type: event.ty.clone(),
        key: event.key.clone(),
        position: Some(position),
        event_json: event.json.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(data: &'static str) -> proto::PostRequest {
        let event = |data: &'static str| proto::NewEvent {
            r#type: "bank.opened.v1".to_owned(),
            id: Some("e-1".to_owned()),
            data: Bytes::from_static(data.as_bytes()),
            ..proto::NewEvent::default()
        };
        proto::PostRequest {
            events: vec![event("{}"), event(data)],
        }
    }

    #[test]
    fn data_is_posted_as_it_was_written() {
        let text = r#"{ "cents": 9007199254740993, "rate": 1.50 }"#;
        let events = new_events(posted(text)).expect("it is JSON");
        assert_eq!(events[1].data.get(), text);
        assert_eq!(events[1].id.as_deref(), Some("e-1"));
        assert_eq!(events[1].pointer, "/events/1/data");
    }

    #[test]
    fn data_that_is_no_json_is_refused_with_its_place() {
        for (data, detail) in [
            ("", "is not JSON: line 1,"),
            ("{\n\"a\":}", "is not JSON: line 2,"),
            ("{} {}", "is not JSON: line 1,"),
        ] {
            let problem = new_events(posted(data)).expect_err("it is no JSON");
            assert_eq!(problem.kind, ProblemKind::Malformed);
            assert_eq!(problem.errors[0].pointer, "/events/1/data");
            assert!(problem.errors[0].detail.starts_with(detail), "{data:?}");
        }
    }

    #[test]
    fn a_stream_ends_after_its_last_frame() {
        let cursor = || "c".to_owned();
        let gone = Problem::new(ProblemKind::Gone, "the topic was deleted");
        for (sent, element, kind) in [
            (
                Frame::Slow { cursor: cursor() },
                true,
                ProblemKind::Unavailable,
            ),
            (
                Frame::Reconnect { cursor: cursor() },
                true,
                ProblemKind::Unavailable,
            ),
            (
                Frame::Failed {
                    cursor: cursor(),
                    problem: gone,
                },
                false,
                ProblemKind::Gone,
            ),
        ] {
            let Step::Last(last, problem) = frame(sent) else {
                panic!("{kind:?} ends the stream");
            };
            assert_eq!(
                last.map(|frame| frame.cursor),
                element.then(cursor),
                "{kind:?}"
            );
            assert_eq!(problem.kind, kind);
        }
        let Step::Next(element) = frame(Frame::Heartbeat { cursor: cursor() }) else {
            panic!("a heartbeat ends nothing");
        };
        assert_eq!(
            element.content,
            Some(Content::Heartbeat(proto::Heartbeat {}))
        );
    }
}
