//! The CloudEvents Kafka protocol binding: binary and structured content mode.
//!
//! Owns how an event stands in a record, in both directions. Knows nothing of clients, schemas or handlers; the payload
//! is bytes to it.

mod base64;
mod binary;
mod draft;
mod structured;

use super::{Attributes, Event, EventType, Headers, HeadersIter, TraceContext};
use bytes::Bytes;
use serde::Serialize;
use serde::ser::Error;
use std::borrow::Cow;

/// The header that tells the content modes apart.
const CONTENT_TYPE: &str = "content-type";

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

/// An event whose type is known only at run time: its payload is any JSON, its destination is given.
#[derive(Debug, Clone)]
pub struct JsonEvent {
    /// CloudEvents attributes; `(source, id)` is the event's identity.
    pub attributes: Attributes,
    /// Destination topic.
    pub topic: String,
    /// Key bytes; none lets the client choose any partition.
    pub key: Option<Bytes>,
    /// The payload as it was written: numbers of any size, the order of members and white space stay as they are.
    pub data: Box<serde_json::value::RawValue>,
}

/// A decoded envelope: attributes and the payload's bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<'a> {
    /// The attributes.
    pub attributes: Attributes,
    /// The payload's bytes, as its `datacontenttype` says (JSON for everything [`encode`] writes); none for an event
    /// without data.
    pub data: Option<Cow<'a, [u8]>>,
}

/// What a reader that asks for some types only finds in a record.
#[allow(
    clippy::large_enum_variant,
    reason = "on the stack, and taken apart at once"
)]
pub(crate) enum Decoded<'a, R> {
    /// An event of a type that it asks for, with what it said of the type.
    Asked(R, Envelope<'a>),
    /// A type that it does not ask for is stated, and nothing else was judged.
    Other {
        /// Whether all mandatory attributes are there.
        is_whole: bool,
    },
}

impl<'a, R> Decoded<'a, R> {
    /// Attributes that were found valid have a type, so their reader was asked.
    fn asked(asked: Option<Option<R>>, envelope: Envelope<'a>) -> Result<Self, DecodeError> {
        let asked = asked.flatten().ok_or(DecodeError::NotAnEvent)?;
        Ok(Self::Asked(asked, envelope))
    }
}

/// Why a record could not be read as a CloudEvent. Never holds a value of the record.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record carries none, or not all, of the mandatory attributes, or it is in an event format other than JSON:
    /// it is a raw record.
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

impl DecodeError {
    fn attribute(name: &str, reason: impl Into<String>) -> Self {
        Self::Attribute {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Encodes an event into the record that carries it. `trace` is written as the hop's context, in the plain headers
/// `traceparent` and `tracestate`.
///
/// The record's timestamp is left to the client: an event can tell of something long past, and a topic's retention would
/// delete its record at once.
///
/// # Errors
/// When the payload cannot be serialised, or when the attributes could not be read back: an empty `id`, `source` or
/// `type`, an extension name that the specification forbids, or a `datacontenttype` of CloudEvents in binary mode.
///
/// # Examples
/// ```
/// use evenkeel::event::{ContentMode, Event, EventType, decode, encode};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Opened {
///     account: String,
/// }
///
/// impl EventType for Opened {
///     const TYPE: &'static str = "bank.account-opened.v1";
///     const TOPIC: &'static str = "bank.accounts";
///     fn key(&self) -> String {
///         self.account.clone()
///     }
/// }
///
/// let event = Event::new("/bank/branch", Opened { account: "a-1".to_owned() });
/// let record = encode(&event, ContentMode::Binary, None)?;
/// assert_eq!(record.topic, "bank.accounts");
/// assert_eq!(record.headers.last("ce_type"), Some(&b"bank.account-opened.v1"[..]));
///
/// let envelope = decode(record.headers.iter(), record.value.as_deref())?;
/// assert_eq!(envelope.attributes, event.attributes);
/// assert_eq!(envelope.data.as_deref(), Some(&br#"{"account":"a-1"}"#[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode<T: EventType>(
    event: &Event<T>,
    mode: ContentMode,
    trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, serde_json::Error> {
    write(
        &event.attributes,
        Destination {
            topic: T::TOPIC.to_owned(),
            key: Some(Bytes::from(event.data.key())),
        },
        &event.data,
        mode,
        trace,
    )
}

/// [`encode`] for an event whose type is known only at run time: a tool's, a gateway's, a replay's.
///
/// # Errors
/// Those of [`encode`].
pub fn encode_json(
    event: &JsonEvent,
    mode: ContentMode,
    trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, serde_json::Error> {
    let destination = Destination {
        topic: event.topic.clone(),
        key: event.key.clone(),
    };
    write(&event.attributes, destination, &event.data, mode, trace)
}

/// Where an event goes.
struct Destination {
    topic: String,
    key: Option<Bytes>,
}

fn write<T: Serialize>(
    attributes: &Attributes,
    destination: Destination,
    data: &T,
    mode: ContentMode,
    trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, serde_json::Error> {
    if let Some(flaw) = attributes.flaw() {
        return Err(serde_json::Error::custom(flaw));
    }
    let (mut headers, value) = match mode {
        ContentMode::Binary => binary::write(attributes, data)?,
        ContentMode::Structured => structured::write(attributes, data)?,
    };
    if let Some(trace) = trace {
        trace.write(&mut headers);
    }
    Ok(OutgoingRecord {
        topic: destination.topic,
        partition: None,
        key: destination.key,
        value: Some(Bytes::from(value)),
        headers,
        timestamp_ms: None,
    })
}

/// Decodes a record's headers and value. Total: any bytes in, an envelope or an error out.
///
/// - A `content-type` that begins with `application/cloudevents`, in any case, marks a structured event; anything else is
///   binary. Where a header or a member repeats, the last one counts.
/// - Binary: the record is an event when all four mandatory attributes are present, else [`DecodeError::NotAnEvent`].
///   The value is the payload, untouched; a record without a value is an event without data.
/// - Structured: the JSON event format, with the payload in `data` or `data_base64`. Another format (such as
///   `application/cloudevents+avro`, or a batch, which Kafka does not have) is [`DecodeError::NotAnEvent`], so that the
///   record can be handled raw and passed on untouched.
/// - Headers and members whose name is no valid attribute name are no attributes and are left alone.
/// - Only a mandatory attribute can spoil an event. Optional ones are kept as they can be: a `time` that no instant holds as
///   [`Attributes::time_text`], an extension that is a fraction, an object or an array as its JSON, and bytes that are not
///   UTF-8 with replacement characters. An empty `time` is none.
/// - A `specversion` in JSON quotes (`"1.0"`, as Spring's header mapper writes it) says that the other attributes are in quotes
///   too; they are read without them.
/// - A `data_base64` of `null` is absent, and so is `data` of `null` beside one that is not.
///
/// # Errors
/// [`DecodeError::NotAnEvent`] for a raw record; otherwise what is wrong with a record that claims to be an event: a
/// `specversion` other than 1.0, a mandatory attribute that is empty or not UTF-8, or a structured value that is not a JSON
/// object of the event format.
pub fn decode<'a>(
    headers: HeadersIter<'_>,
    value: Option<&'a [u8]>,
) -> Result<Envelope<'a>, DecodeError> {
    match decode_asked(headers, value, |_| Some(()))? {
        Decoded::Asked((), envelope) => Ok(envelope),
        // Every type was asked for.
        Decoded::Other { .. } => Err(DecodeError::NotAnEvent),
    }
}

/// [`decode`] for a reader of some types: it says whether it asks for a type before anything else of the event is judged.
pub(crate) fn decode_asked<'a, R>(
    headers: HeadersIter<'_>,
    value: Option<&'a [u8]>,
    asks_for: impl FnOnce(&str) -> Option<R>,
) -> Result<Decoded<'a, R>, DecodeError> {
    let found = binary::Found::among(headers);
    let content_type = found.content_type.map(draft::unquoted);
    match content_type.as_deref().and_then(structured::format) {
        None => found.into_event(value, asks_for),
        Some(format) if format.eq_ignore_ascii_case(b"+json") => structured::read(value, asks_for),
        Some(_) => Err(DecodeError::NotAnEvent),
    }
}

#[cfg(test)]
mod tests;
