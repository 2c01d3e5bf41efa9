//! Binary content mode: attributes as `ce_*` headers, the payload as the record's value.

use super::draft::{Draft, unquoted};
use super::envelope::CONTENT_TYPE;
use super::{DecodeError, Decoded, Envelope, structured};
use crate::event::{Attributes, Headers, HeadersIter};
use serde::Serialize;
use serde::ser::Error;
use std::borrow::Cow;

/// The prefix of an attribute's name in its header.
const PREFIX: &str = "ce_";

/// The only attribute whose header is [`CONTENT_TYPE`] instead.
const DATA_CONTENT_TYPE: &str = "datacontenttype";

/// The usual bytes of a record's headers, with their trace: room for them is made at once.
const HEADERS_BYTES: usize = 384;
/// The same of an attribute's header name.
const NAME_BYTES: usize = 32;

pub(super) fn write<T: Serialize>(
    attributes: &Attributes,
    data: &T,
) -> Result<(Headers, Vec<u8>), serde_json::Error> {
    Ok((headers(attributes)?, serde_json::to_vec(data)?))
}

/// The headers of an event with these attributes.
pub(super) fn headers(attributes: &Attributes) -> Result<Headers, serde_json::Error> {
    let mut headers = Headers::with_capacity(HEADERS_BYTES);
    let mut header = String::with_capacity(NAME_BYTES);
    header.push_str(PREFIX);
    for (name, value) in attributes.entries() {
        if name == DATA_CONTENT_TYPE {
            if structured::format(&unquoted(value.as_bytes())).is_some() {
                return Err(serde_json::Error::custom(
                    "a payload that is itself a CloudEvent can only be written in structured \
                     mode: in binary mode its \
                     datacontenttype would mark the record as structured",
                ));
            }
            headers.push(CONTENT_TYPE, Some(value.as_bytes()));
            continue;
        }
        header.truncate(PREFIX.len());
        header.push_str(name);
        headers.push(&header, Some(value.as_bytes()));
    }
    Ok(headers)
}

/// The attributes in the headers of a record, found in one pass.
#[derive(Default)]
pub(super) struct BinaryAttributes<'a> {
    /// The last `content-type`: of the payload in binary mode, otherwise of the event.
    pub(super) content_type: Option<&'a [u8]>,
    attributes: Draft<'a>,
}

impl<'a> BinaryAttributes<'a> {
    pub(super) fn find_in(headers: HeadersIter<'a>) -> Self {
        let mut found = Self::default();
        for (header, value) in headers {
            if let Some(name) = header.strip_prefix(PREFIX.as_bytes()) {
                found.attributes.set(name, value);
            } else if header == CONTENT_TYPE.as_bytes() {
                found.content_type = value;
            }
        }
        found
    }

    /// Whether no header belongs to an event.
    pub(super) fn has_no_attributes(&self) -> bool {
        self.attributes.is_empty()
    }

    /// Reads the event in binary mode.
    pub(super) fn into_event<'v, R>(
        mut self,
        value: Option<&'v [u8]>,
        asks_for: impl FnOnce(&str) -> Option<R>,
    ) -> Result<Decoded<'v, R>, DecodeError> {
        let is_whole = self.attributes.is_complete();
        let asked = self.attributes.ty().as_deref().map(asks_for);
        if let Some(None) = asked {
            return Ok(Decoded::Other { is_whole });
        }
        if !is_whole {
            return Err(DecodeError::NotAnEvent);
        }
        // Set last: a stray header `ce_datacontenttype` does not count.
        self.attributes
            .set(DATA_CONTENT_TYPE.as_bytes(), self.content_type);
        let envelope = Envelope {
            attributes: self.attributes.finish()?,
            data: value.map(Cow::Borrowed),
        };
        Decoded::asked(asked, envelope)
    }
}
