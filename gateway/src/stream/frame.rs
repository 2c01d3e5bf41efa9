//! What a stream delivers: events, encoded once for all clients, and the frames between them.
//!
//! Knows records and the allow list. Knows no protocol of the clients.

use crate::access::AllowList;
use crate::http::Problem;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use evenkeel::event::{Attributes, decode};
use evenkeel::kafka::reader::LogRecord;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;

/// The events that a stream has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Filter {
    /// The event types, at least one. Their topics are read.
    pub types: Vec<String>,
    /// The record key. None: events of all keys. All partitions are read nevertheless.
    pub key: Option<String>,
}

impl Filter {
    /// All events of these types.
    pub fn new<T: Into<String>>(types: impl IntoIterator<Item = T>) -> Self {
        Self {
            types: types.into_iter().map(Into::into).collect(),
            key: None,
        }
    }

    /// Restricts the events to those of this record key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Option<String>>) -> Self {
        self.key = key.into();
        self
    }

    /// Whether the stream has the event.
    pub fn matches(&self, event: &StreamedEvent) -> bool {
        self.types.contains(&event.ty) && (self.key.is_none() || self.key == event.key)
    }
}

/// An element of a stream. `cursor` is the position after it: a new stream from there continues
/// with the next event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Frame {
    /// An event.
    Event {
        /// The position after the event.
        cursor: String,
        /// The event, shared with other streams.
        event: Arc<StreamedEvent>,
    },
    /// Nothing new. The first frame of each stream, and then one at each interval.
    Heartbeat {
        /// The present position.
        cursor: String,
    },
    /// Offsets that could not be delivered: the brokers deleted them before they were read, or
    /// cannot return them. `from` is the first lost offset, and the stream continues at `to`. If
    /// `to` is not above `from`, the log was cut or its topic created anew.
    Gap {
        /// The present position.
        cursor: String,
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The first offset that is missing.
        from: i64,
        /// The offset at which the stream continues.
        to: i64,
    },
    /// The client did not take frames for too long. The last frame.
    Slow {
        /// The position to reconnect with.
        cursor: String,
    },
    /// This gateway stops, or the caller's token expired. The last frame.
    Reconnect {
        /// The position to reconnect with.
        cursor: String,
    },
    /// The stream cannot continue, for example because a topic was deleted. The last frame.
    Failed {
        /// The position after the last frame.
        cursor: String,
        /// Why.
        problem: Problem,
    },
}

impl Frame {
    /// Whether the stream ends with this frame.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Slow { .. } | Self::Reconnect { .. } | Self::Failed { .. }
        )
    }
}

/// An event of the log. `Debug` prints its position and no content.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamedEvent {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The event type.
    pub ty: String,
    /// The record key, if it has one that is text.
    pub key: Option<String>,
    /// The CloudEvent in the JSON event format, on one line.
    pub json: Bytes,
}

impl fmt::Debug for StreamedEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// The bytes of an event in memory beside its texts: the value itself, its counters, and its place
/// in a ring.
const OVERHEAD_BYTES: usize = size_of::<StreamedEvent>() + 64;

impl StreamedEvent {
    /// The event in a record. None if it is not a valid CloudEvent, or its type is not streamed
    /// from this topic.
    pub(super) fn of_record(record: &LogRecord, allow_list: &AllowList) -> Option<Self> {
        let envelope = decode(record.headers.iter(), record.value.as_deref()).ok()?;
        let attributes = envelope.attributes;
        let route = allow_list.stream(&attributes.ty)?;
        if route.topic != *record.topic {
            return None;
        }
        let data = data(
            envelope.data.as_deref(),
            attributes.datacontenttype.as_deref(),
        );
        let document = Document {
            attributes: &attributes,
            data,
        };
        let mut json = serde_json::to_vec(&document).ok()?;
        // The payload is passed on as it was written. In JSON, line breaks are only white space:
        // strings have them escaped.
        json.iter_mut()
            .filter(|byte| matches!(**byte, b'\n' | b'\r'))
            .for_each(|byte| *byte = b' ');
        let key = record
            .key
            .clone()
            .and_then(|key| String::from_utf8(key).ok());
        Some(Self {
            topic: Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset,
            ty: attributes.ty,
            key,
            json: json.into(),
        })
    }

    /// The bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let key = self.key.as_ref().map_or(0, String::len);
        self.json.len() + self.ty.len() + key + OVERHEAD_BYTES
    }
}

/// An event in the JSON event format of CloudEvents 1.0.2.
struct Document<'a> {
    attributes: &'a Attributes,
    data: Data<'a>,
}

/// The payload as a member of the document.
enum Data<'a> {
    Absent,
    Json(&'a RawValue),
    Text(&'a str),
    Binary(&'a [u8]),
}

/// The payload's form: JSON as it is, text if the content type is another, and Base64 for the rest.
fn data<'a>(bytes: Option<&'a [u8]>, content_type: Option<&str>) -> Data<'a> {
    let Some(bytes) = bytes else {
        return Data::Absent;
    };
    if content_type.is_none_or(is_json) {
        let json = serde_json::from_slice::<&RawValue>(bytes);
        return json.map_or(Data::Binary(bytes), Data::Json);
    }
    std::str::from_utf8(bytes).map_or(Data::Binary(bytes), Data::Text)
}

/// Whether a media type's subtype is `json` or ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.rsplit('/').next().unwrap_or_default();
    let last = subtype.rsplit('+').next().unwrap_or_default();
    last.eq_ignore_ascii_case("json")
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Attributes {
            id,
            source,
            ty,
            subject,
            time,
            time_text,
            datacontenttype,
            dataschema,
            extensions,
            ..
        } = self.attributes;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("specversion", "1.0")?;
        map.serialize_entry("id", id)?;
        map.serialize_entry("source", source)?;
        map.serialize_entry("type", ty)?;
        let time = time.map(|time| time.to_string());
        for (name, value) in [
            ("subject", subject.as_ref()),
            ("time", time.as_ref().or(time_text.as_ref())),
            ("datacontenttype", datacontenttype.as_ref()),
            ("dataschema", dataschema.as_ref()),
        ] {
            if let Some(value) = value {
                map.serialize_entry(name, value)?;
            }
        }
        for (name, value) in extensions {
            map.serialize_entry(name, value)?;
        }
        match self.data {
            Data::Absent => {}
            Data::Json(json) => map.serialize_entry("data", json)?,
            Data::Text(text) => map.serialize_entry("data", text)?,
            Data::Binary(bytes) => map.serialize_entry("data_base64", &STANDARD.encode(bytes))?,
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::EventRoute;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::TimestampKind;
    use evenkeel::schema::Catalogue;

    fn allow_list() -> AllowList {
        let schemas = [
            ("test.a.v1", "{}"),
            ("test.hidden.v1", "{}"),
            ("test.other.v1", "{}"),
        ];
        let catalogue = Catalogue::from_texts(schemas).expect("valid schemas");
        let routes = vec![
            EventRoute::new("test.a.v1", "topic", "key").with_stream(true),
            EventRoute::new("test.hidden.v1", "topic", "key").with_post(true),
            EventRoute::new("test.other.v1", "elsewhere", "key").with_stream(true),
        ];
        AllowList::new(routes, Arc::new(catalogue)).expect("a valid list")
    }

    fn record(ty: &str, content_type: &str, value: Option<&[u8]>) -> LogRecord {
        let mut headers = Headers::new();
        for (name, value) in [
            ("ce_specversion", "1.0"),
            ("ce_id", "e-1"),
            ("ce_source", "/test"),
            ("ce_type", ty),
            ("ce_tenant", "north"),
            ("content-type", content_type),
        ] {
            headers.push(name, Some(value.as_bytes()));
        }
        LogRecord {
            topic: "topic".into(),
            partition: 3,
            offset: 17,
            timestamp_kind: TimestampKind::Absent,
            timestamp_ms: None,
            key: Some(b"k-1".to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers,
        }
    }

    #[test]
    fn payloads_of_any_kind_become_one_line_of_json() {
        for (content_type, value, expected) in [
            (
                "application/json",
                Some(&b"{\n\"n\":\r\n1.50}"[..]),
                r#""data":{ "n":  1.50}"#,
            ),
            ("application/x+json; a=b", Some(&b"1"[..]), r#""data":1"#),
            (
                "application/json",
                Some(&b"{"[..]),
                r#""data_base64":"ew==""#,
            ),
            ("text/plain", Some(&b"a\nb"[..]), r#""data":"a\nb""#),
            ("image/png", Some(&[0xff][..]), r#""data_base64":"/w==""#),
            ("application/json", None, r#""tenant":"north"}"#),
        ] {
            let record = record("test.a.v1", content_type, value);
            let event = StreamedEvent::of_record(&record, &allow_list()).expect("an event");
            let json = std::str::from_utf8(&event.json).expect("UTF-8");
            assert!(json.contains(expected), "{json}");
            assert!(!json.contains(['\n', '\r']), "{json}");
            let back: serde_json::Value = serde_json::from_str(json).expect("JSON");
            assert_eq!(back["type"], "test.a.v1");
            assert_eq!((event.partition, event.offset), (3, 17));
            assert_eq!(event.key.as_deref(), Some("k-1"));
        }
    }

    #[test]
    fn only_streamed_types_of_the_topic_are_taken() {
        for (ty, is_taken) in [
            ("test.a.v1", true),
            ("test.hidden.v1", false),
            ("test.other.v1", false),
            ("test.unknown.v1", false),
        ] {
            let record = record(ty, "application/json", Some(b"{}"));
            let event = StreamedEvent::of_record(&record, &allow_list());
            assert_eq!(event.is_some(), is_taken, "{ty}");
        }
        let mut raw = record("test.a.v1", "application/json", Some(b"{}"));
        raw.headers = Headers::new();
        assert_eq!(StreamedEvent::of_record(&raw, &allow_list()), None);
    }
}
