//! Frames as text: server-sent events, and JSON messages.
//!
//! Pure. Each frame of server-sent events has its cursor as `id`, so that a browser's `EventSource`
//! reconnects with it. By the HTML standard an `id` counts even without data, but some libraries
//! ignore such a block: so heartbeats have data, and a name of their own, by which pages that
//! listen to other events do not see them.

use super::super::frame::Frame;
use std::io::Write as _;
use std::time::Duration;

/// Appends the time after which a client reconnects.
pub(super) fn write_retry(text: &mut Vec<u8>, after: Duration) {
    // Writing to memory does not fail.
    let _ = write!(text, "retry: {}\n\n", after.as_millis());
}

/// Appends a frame as a server-sent event.
pub(super) fn write_event(text: &mut Vec<u8>, frame: &Frame) {
    let (name, cursor) = match frame {
        Frame::Event { cursor, event } => (event.ty.as_str(), cursor),
        Frame::Heartbeat { cursor } => ("heartbeat", cursor),
        Frame::Gap { cursor, .. } => ("gap", cursor),
        Frame::Slow { cursor } => ("slow", cursor),
        Frame::Reconnect { cursor } => ("reconnect", cursor),
        Frame::Failed { cursor, .. } => ("failed", cursor),
    };
    text.extend_from_slice(b"id: ");
    text.extend_from_slice(cursor.as_bytes());
    text.extend_from_slice(b"\nevent: ");
    // A line break would begin another field. No event type of a catalogue has one.
    text.extend(
        name.bytes()
            .map(|byte| if byte < b' ' { b' ' } else { byte }),
    );
    text.extend_from_slice(b"\ndata: ");
    write_data(text, frame);
    text.extend_from_slice(b"\n\n");
}

/// Appends a frame as a JSON object with `kind` and `id`.
pub(super) fn write_message(text: &mut Vec<u8>, frame: &Frame) {
    let (kind, cursor) = match frame {
        Frame::Event { cursor, .. } => ("event", cursor),
        Frame::Heartbeat { cursor } => ("heartbeat", cursor),
        Frame::Gap { cursor, .. } => ("gap", cursor),
        Frame::Slow { cursor } => ("slow", cursor),
        Frame::Reconnect { cursor } => ("reconnect", cursor),
        Frame::Failed { cursor, .. } => ("failed", cursor),
    };
    // Cursors are base64url, which needs no escapes.
    let _ = write!(text, r#"{{"kind":"{kind}","id":"{cursor}""#);
    if let Frame::Event { event, .. } = frame {
        let _ = write!(
            text,
            r#","type":{}"#,
            serde_json::Value::from(event.ty.as_str())
        );
    }
    text.extend_from_slice(br#","data":"#);
    write_data(text, frame);
    text.push(b'}');
}

/// Appends the frame's data, which is one line of JSON.
fn write_data(text: &mut Vec<u8>, frame: &Frame) {
    match frame {
        Frame::Event { event, .. } => text.extend_from_slice(&event.json),
        Frame::Gap {
            topic,
            partition,
            from,
            to,
            ..
        } => {
            // The name of a topic needs no escapes.
            let _ = write!(
                text,
                r#"{{"topic":"{topic}","partition":{partition},"from":{from},"to":{to}}}"#
            );
        }
        Frame::Failed { problem, .. } => {
            let _ = write!(text, "{}", problem.to_json());
        }
        Frame::Heartbeat { .. } | Frame::Slow { .. } | Frame::Reconnect { .. } => {
            text.extend_from_slice(b"{}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Problem, ProblemKind};
    use crate::stream::StreamedEvent;
    use std::sync::Arc;

    fn cursor() -> String {
        "C-1_".to_owned()
    }

    fn event(ty: &str) -> Frame {
        let event = StreamedEvent {
            topic: "orders".into(),
            partition: 1,
            offset: 2,
            ty: ty.to_owned(),
            key: None,
            json: r#"{"id":"e"}"#.into(),
        };
        Frame::Event {
            cursor: cursor(),
            event: Arc::new(event),
        }
    }

    fn gap() -> Frame {
        Frame::Gap {
            cursor: cursor(),
            topic: "orders".into(),
            partition: 1,
            from: 2,
            to: 5,
        }
    }

    #[test]
    fn every_frame_is_one_server_sent_event() {
        let failed = Frame::Failed {
            cursor: cursor(),
            problem: Problem::new(ProblemKind::NotFound, "line\nbreak"),
        };
        for (frame, name, data) in [
            (event("a.v1"), "a.v1", r#"{"id":"e"}"#),
            (event("a\nid: x\r"), "a id: x ", r#"{"id":"e"}"#),
            (Frame::Heartbeat { cursor: cursor() }, "heartbeat", "{}"),
            (
                gap(),
                "gap",
                r#"{"topic":"orders","partition":1,"from":2,"to":5}"#,
            ),
            (Frame::Slow { cursor: cursor() }, "slow", "{}"),
            (Frame::Reconnect { cursor: cursor() }, "reconnect", "{}"),
            (failed, "failed", ""),
        ] {
            let mut text = Vec::new();
            write_event(&mut text, &frame);
            let text = String::from_utf8(text).expect("UTF-8");
            let expected = format!("id: C-1_\nevent: {name}\ndata: {data}");
            assert!(text.starts_with(&expected), "{text}");
            assert!(text.ends_with("\n\n"), "{text}");
            assert_eq!(text.trim_end().lines().count(), 3, "{text}");
        }
    }

    #[test]
    fn every_message_is_a_json_object() {
        for (frame, kind) in [
            (event("a\"v1"), "event"),
            (Frame::Heartbeat { cursor: cursor() }, "heartbeat"),
            (gap(), "gap"),
            (Frame::Slow { cursor: cursor() }, "slow"),
            (Frame::Reconnect { cursor: cursor() }, "reconnect"),
        ] {
            let mut text = Vec::new();
            write_message(&mut text, &frame);
            let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
            assert_eq!((&json["kind"], &json["id"]), (&kind.into(), &"C-1_".into()));
            assert!(json["data"].is_object(), "{json}");
            if kind == "event" {
                assert_eq!(json["type"], "a\"v1");
            }
        }
    }

    #[test]
    fn the_reconnection_time_is_a_block_of_its_own() {
        let mut text = Vec::new();
        write_retry(&mut text, Duration::from_secs(2));
        assert_eq!(text, b"retry: 2000\n\n");
    }
}
