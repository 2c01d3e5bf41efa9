//! Content modes, and the result of decoding a record.

use super::error::DecodeError;
use crate::event::Attributes;
use std::borrow::Cow;

/// The header that distinguishes the content modes.
pub(super) const CONTENT_TYPE: &str = "content-type";

/// How an event is encoded in a record. Both modes are read, whatever a publisher writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ContentMode {
    /// Attributes as `ce_*` headers, and the payload as the record's value. The default: a consumer
    /// finds the handler without parsing the value, and other programs can read the plain payload.
    #[default]
    Binary,
    /// One JSON object with attributes and payload as the record's value. For consumers or bridges
    /// that drop headers.
    Structured,
}

/// A decoded envelope, from [`decode`](super::decode): attributes, and the bytes of the payload.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Envelope<'a> {
    /// The CloudEvents attributes of the event.
    pub attributes: Attributes,
    /// The payload's bytes, in the format of its `datacontenttype` (JSON for every event that
    /// [`encode`](super::encode) writes). None for an event without data.
    pub data: Option<Cow<'a, [u8]>>,
}

/// The result of reading a record for a reader that asks for certain types only.
#[allow(
    clippy::large_enum_variant,
    reason = "on the stack, and taken apart at once"
)]
pub(crate) enum Decoded<'a, R> {
    /// An event of a requested type, with the reader's answer for the type.
    Asked(R, Envelope<'a>),
    /// An event of another type. Nothing else of it was validated.
    Other {
        /// Whether all mandatory attributes are present.
        is_whole: bool,
    },
}

impl<'a, R> Decoded<'a, R> {
    /// The result for valid attributes. They have a type, so the reader was asked for it.
    pub(super) fn asked(
        asked: Option<Option<R>>,
        envelope: Envelope<'a>,
    ) -> Result<Self, DecodeError> {
        let asked = asked.flatten().ok_or(DecodeError::NotAnEvent)?;
        Ok(Self::Asked(asked, envelope))
    }
}
