//! The CloudEvents Kafka protocol binding: binary and structured content mode.
//!
//! Owns the encoding of an event in a record, in both directions. Does not know clients, schemas or
//! handlers, and treats the payload as bytes.
//!
//! References: CloudEvents 1.0.2, its Kafka protocol binding and its JSON event format. Where other
//! libraries deviate from them, decoding accepts their form too, as far as it is unambiguous; the
//! tests in `tests/sdks.rs` name them.
//!
//! | file | content |
//! |---|---|
//! | `envelope.rs` | content modes, and the result of decoding |
//! | `binary.rs`, `structured.rs` | one content mode each, in both directions |
//! | `draft.rs` | the validation of received attributes, for both modes |
//! | `base64.rs` | the payload in `data_base64` |

mod base64;
mod binary;
mod draft;
mod envelope;
mod error;
mod structured;

use super::outgoing::OutgoingRecord;
pub(crate) use envelope::Decoded;
pub use envelope::{ContentMode, Envelope};
pub use error::DecodeError;

use super::{Attributes, Event, EventType, HeadersIter, TraceContext};
use bytes::Bytes;
use serde::Serialize;
use serde::ser::Error;

/// An event whose type is known only at run time: its payload is any JSON, and its topic and key
/// are given. For tools and gateways.
///
/// ```
/// use evenkeel::event::{Attributes, ContentMode, JsonEvent, encode_json};
///
/// let attributes = Attributes::new("o-1", "/shop/web", "shop.order-placed.v1");
/// let data = serde_json::value::RawValue::from_string(r#"{"cents":1.50}"#.to_owned())?;
/// let event = JsonEvent::new(attributes, "shop.orders", data).with_key("o-1");
/// let record = encode_json(&event, ContentMode::Binary, None)?;
/// assert_eq!(record.value.as_deref(), Some(&br#"{"cents":1.50}"#[..]));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct JsonEvent {
    /// CloudEvents attributes. `(source, id)` is the event's identity.
    pub attributes: Attributes,
    /// Destination topic.
    pub topic: String,
    /// Key bytes. None lets the client choose any partition.
    pub key: Option<Bytes>,
    /// The payload as it was written: large numbers, the order of members and white space are kept.
    pub data: Box<serde_json::value::RawValue>,
}

impl JsonEvent {
    /// Creates an event without a key.
    pub fn new(
        attributes: Attributes,
        topic: impl Into<String>,
        data: Box<serde_json::value::RawValue>,
    ) -> Self {
        Self {
            attributes,
            topic: topic.into(),
            key: None,
            data,
        }
    }

    /// Sets the [`key`](Self::key), which orders the event.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// [`encode_json`] in binary mode, without a copy of the payload. Returns the attributes, too.
    ///
    /// # Errors
    /// Returns the errors of [`encode`].
    ///
    /// ```
    /// use evenkeel::event::{Attributes, ContentMode, JsonEvent, encode_json};
    ///
    /// let attributes = Attributes::new("o-1", "/shop/web", "shop.order-placed.v1");
    /// let data = serde_json::value::RawValue::from_string("{}".to_owned())?;
    /// let event = JsonEvent::new(attributes, "shop.orders", data).with_key("o-1");
    /// let expected = encode_json(&event, ContentMode::Binary, None)?;
    /// let (record, attributes) = event.into_record(None)?;
    /// assert_eq!(record, expected);
    /// assert_eq!(attributes.id, "o-1");
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn into_record(
        self,
        trace: Option<&TraceContext>,
    ) -> Result<(OutgoingRecord, Attributes), serde_json::Error> {
        if let Some(reason) = self.attributes.invalid_reason() {
            return Err(serde_json::Error::custom(reason));
        }
        let mut headers = binary::headers(&self.attributes)?;
        if let Some(trace) = trace {
            trace.write(&mut headers);
        }
        let data: Box<str> = self.data.into();
        let record = OutgoingRecord {
            topic: self.topic,
            partition: None,
            key: self.key,
            value: Some(Bytes::from(data.into_boxed_bytes())),
            headers,
            timestamp_ms: None,
        };
        Ok((record, self.attributes))
    }
}

/// Encodes an event into a record. `trace` is written as the trace context of this hop, in the
/// plain headers `traceparent` and `tracestate`.
///
/// The client sets the record's timestamp: the time of an event may be long past, and a topic's
/// retention would delete its record at once.
///
/// # Errors
/// Returns an error if the payload cannot be serialised, or if the attributes could not be decoded
/// again: an empty `id`, `source` or `type`, an extension name that the specification forbids, or a
/// `datacontenttype` of CloudEvents in binary mode.
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

/// [`encode`] for an event whose type is known only at run time, as in a tool, a gateway or a
/// replay.
///
/// # Errors
/// Returns the errors of [`encode`].
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

/// The topic and key of an event.
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
    if let Some(reason) = attributes.invalid_reason() {
        return Err(serde_json::Error::custom(reason));
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

/// Decodes the headers and value of a record. Total: any bytes result in an envelope or an error.
///
/// - A `content-type` that begins with `application/cloudevents`, in any case, marks a structured
///   event. Any other is binary. The last one of repeated headers or members counts.
/// - Binary: the record is an event if all four mandatory attributes are present, otherwise
///   [`DecodeError::NotAnEvent`]. The value is the payload, unchanged. A record without a value is
///   an event without data.
/// - Structured: the JSON event format, with the payload in `data` or `data_base64`. Another format
///   (such as `application/cloudevents+avro`, or a batch, which Kafka does not have) is
///   [`DecodeError::NotAnEvent`], so that the record can be handled raw and passed on unchanged.
/// - A record without a `ce_*` header whose value is a JSON object with all mandatory attributes is
///   read as a structured event, whatever its `content-type`: the Python SDK before 2.0 writes the
///   payload's there, Dapr and others write none.
/// - Headers and members whose name is no valid attribute name are ignored.
/// - Only a mandatory attribute can make an event invalid. Optional ones are kept as far as
///   possible: a `time` that is no representable instant as [`Attributes::time_text`], an extension
///   that is a fraction, an object or an array as its JSON, and bytes that are not UTF-8 with
///   replacement characters. An empty `time` is none.
/// - A `specversion` in JSON quotes (`"1.0"`, as written by Spring's header mapper) means that the
///   other attributes are quoted too. Their quotes are removed.
/// - A `data_base64` of `null` is absent, and so is `data` of `null` beside a `data_base64` that is
///   not `null`.
///
/// # Errors
/// Returns [`DecodeError::NotAnEvent`] for a raw record, and other errors for a record that claims
/// to be an event but is invalid: a `specversion` other than 1.0, a mandatory attribute that is
/// empty or not UTF-8, or a structured value that is not a JSON object of the event format. A retry
/// is useless: the bytes of a record do not change.
///
/// # Examples
/// ```
/// use evenkeel::event::{DecodeError, Headers, decode};
///
/// let mut headers = Headers::new();
/// for (name, value) in [
///     ("ce_specversion", "1.0"),
///     ("ce_id", "o-1"),
///     ("ce_source", "/shop/web"),
///     ("ce_type", "shop.order-placed.v1"),
/// ] {
///     headers.push(name, Some(value.as_bytes()));
/// }
/// let envelope = decode(headers.iter(), Some(b"{}"))?;
/// assert_eq!(envelope.attributes.ty, "shop.order-placed.v1");
///
/// let raw = decode(Headers::new().iter(), Some(b"plain text"));
/// assert_eq!(raw, Err(DecodeError::NotAnEvent));
/// # Ok::<(), DecodeError>(())
/// ```
pub fn decode<'a>(
    headers: HeadersIter<'_>,
    value: Option<&'a [u8]>,
) -> Result<Envelope<'a>, DecodeError> {
    match decode_for(headers, value, |_| Some(()))? {
        Decoded::Asked((), envelope) => Ok(envelope),
        // All types were asked for.
        Decoded::Other { .. } => Err(DecodeError::NotAnEvent),
    }
}

/// [`decode`] for a reader of certain types, which is called with the type before the rest of the
/// event is validated.
pub(crate) fn decode_for<'a, R>(
    headers: HeadersIter<'_>,
    value: Option<&'a [u8]>,
    asks_for: impl FnOnce(&str) -> Option<R>,
) -> Result<Decoded<'a, R>, DecodeError> {
    let found = binary::BinaryAttributes::find_in(headers);
    let content_type = found.content_type.map(draft::unquoted);
    match content_type.as_deref().and_then(structured::format) {
        None if found.has_no_attributes() => {
            match value.filter(|value| structured::is_unmarked(value)) {
                Some(value) => structured::read_unmarked(value, asks_for),
                None => Err(DecodeError::NotAnEvent),
            }
        }
        None => found.into_event(value, asks_for),
        Some(format) if format.eq_ignore_ascii_case(b"+json") => structured::read(value, asks_for),
        Some(_) => Err(DecodeError::NotAnEvent),
    }
}

#[cfg(test)]
mod tests;
