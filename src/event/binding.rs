//! The CloudEvents Kafka protocol binding: binary and structured content mode.

use super::{Attributes, Event, EventType, Headers, HeadersIter, TraceContext};
use bytes::Bytes;

/// How an event stands in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentMode {
    /// Attributes as `ce_*` headers, the payload as the record's value. The default.
    #[default]
    Binary,
    /// One JSON object with attributes and payload as the record's value.
    Structured,
}

/// A record on its way to Kafka.
#[derive(Debug, Clone, PartialEq)]
pub struct OutgoingRecord {
    /// Destination topic.
    pub topic: String,
    /// A fixed partition, or none to let the key decide.
    pub partition: Option<i32>,
    /// Key bytes.
    pub key: Option<Bytes>,
    /// Value bytes; none is a tombstone.
    pub value: Option<Bytes>,
    /// Headers.
    pub headers: Headers,
    /// Creation time in milliseconds since the epoch; none lets the client set it.
    pub timestamp_ms: Option<i64>,
}

/// A decoded envelope: attributes and the payload's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The attributes.
    pub attributes: Attributes,
    /// The payload's JSON bytes (`data` of a structured event); none for an event without data.
    pub data: Option<std::borrow::Cow<'a, [u8]>>,
}

/// Why a record that claims to be a CloudEvent could not be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record carries none, or not all, of the mandatory attributes: it is a raw record.
    #[error("the record is not a CloudEvent")]
    NotAnEvent,
    /// An attribute is not valid.
    #[error("the attribute {name} is not valid: {reason}")]
    Attribute {
        /// The attribute's name.
        name: String,
        /// What is wrong with it, without its value.
        reason: String,
    },
    /// A structured event is not a JSON object of the event format.
    #[error("the structured event cannot be read: {0}")]
    Structured(String),
}

/// Encodes an event into the record that carries it. `trace` is written as the hop's context.
pub fn encode<T: EventType>(
    _event: &Event<T>,
    _mode: ContentMode,
    _trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, serde_json::Error> {
    todo!()
}

/// Decodes a record's headers and value. Total: any bytes in, an envelope or an error out.
pub fn decode<'a>(
    _headers: HeadersIter<'_>,
    _value: Option<&'a [u8]>,
) -> Result<Envelope<'a>, DecodeError> {
    todo!()
}
