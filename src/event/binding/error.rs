//! Errors of decoding a CloudEvent.

/// Why a record could not be decoded as a CloudEvent. Never contains a value of the record, so it
/// may be logged.
///
/// A retry is useless, as the bytes stay the same. A consumer passes a raw record
/// ([`DecodeError::NotAnEvent`]) to the router's raw handler, if it has one. Otherwise, and with
/// another error, the record becomes a dead letter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record is a raw record: it has not all of the mandatory attributes, or it is in an event
    /// format other than JSON.
    #[error("the record is not a CloudEvent")]
    NotAnEvent,
    /// An attribute is not valid: the record claims to be an event. Its producer has to be
    /// corrected.
    #[error("the attribute {name} is not valid: {reason}")]
    Attribute {
        /// The attribute's name.
        name: String,
        /// The fault of the attribute, without its value.
        reason: String,
    },
    /// A structured event is not a JSON object of the event format.
    #[error("the structured event cannot be read: {0}")]
    Structured(String),
}

impl DecodeError {
    pub(super) fn attribute(name: &str, reason: impl Into<String>) -> Self {
        Self::Attribute {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}
