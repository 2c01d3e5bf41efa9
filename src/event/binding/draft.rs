//! Attributes while they are read: bytes by name, validated after all are collected.
//!
//! Owns the validation of attributes for both content modes, so that they cannot differ. Does not
//! know the source of the bytes.

use super::DecodeError;
use crate::event::Attributes;
use crate::event::attributes::{SPEC_VERSION, is_extension_name};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The received attributes. A later value replaces an earlier one, and so does a later absence.
#[derive(Default)]
pub(super) struct Draft<'a> {
    specversion: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    ty: Option<&'a [u8]>,
    subject: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    datacontenttype: Option<&'a [u8]>,
    dataschema: Option<&'a [u8]>,
    extensions: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Draft<'a> {
    /// Notes an attribute. Ignores a name that no attribute can have.
    pub(super) fn set(&mut self, name: &'a [u8], value: Option<&'a [u8]>) {
        let field = match name {
            b"specversion" => &mut self.specversion,
            b"id" => &mut self.id,
            b"source" => &mut self.source,
            b"type" => &mut self.ty,
            b"subject" => &mut self.subject,
            b"time" => &mut self.time,
            b"datacontenttype" => &mut self.datacontenttype,
            b"dataschema" => &mut self.dataschema,
            extension if is_extension_name(extension) => {
                match value {
                    Some(value) => self.extensions.insert(extension, value),
                    None => self.extensions.remove(extension),
                };
                return;
            }
            _ => return,
        };
        *field = value;
    }

    /// Whether no mandatory attribute is present.
    pub(super) fn is_empty(&self) -> bool {
        [self.specversion, self.id, self.source, self.ty]
            .iter()
            .all(Option::is_none)
    }

    /// Whether all mandatory attributes are present.
    pub(super) fn is_complete(&self) -> bool {
        [self.specversion, self.id, self.source, self.ty]
            .iter()
            .all(Option::is_some)
    }

    /// The event's type, if it is present and valid.
    pub(super) fn ty(&self) -> Option<Cow<'a, str>> {
        let ty = self.unquoted(self.ty?);
        let ty = match ty {
            Cow::Borrowed(ty) => Cow::Borrowed(std::str::from_utf8(ty).ok()?),
            Cow::Owned(ty) => Cow::Owned(String::from_utf8(ty).ok()?),
        };
        Some(ty).filter(|ty| !ty.is_empty())
    }

    /// Validates the collected attributes. Only a mandatory attribute can make the event invalid:
    /// the others are kept as far as possible.
    pub(super) fn finish(self) -> Result<Attributes, DecodeError> {
        let mandatory = |name, value: Option<&'a [u8]>| {
            mandatory(name, value.map(|value| self.unquoted(value)))
        };
        let optional = |value: Option<&'a [u8]>| value.map(|value| text(&self.unquoted(value)));
        // The usual value, without a text of its own for each event.
        let is_plain = self.specversion == Some(SPEC_VERSION.as_bytes());
        if !is_plain && mandatory("specversion", self.specversion)? != SPEC_VERSION {
            return Err(DecodeError::attribute(
                "specversion",
                "only 1.0 is understood",
            ));
        }
        let time_value = self.time.map(|value| self.unquoted(value));
        let (time, time_text) = time(time_value.as_deref().map(String::from_utf8_lossy));
        let extensions = self.extensions.iter();
        let extensions = extensions.map(|(name, value)| (text(name), text(&self.unquoted(value))));
        Ok(Attributes {
            id: mandatory("id", self.id)?,
            source: mandatory("source", self.source)?,
            ty: mandatory("type", self.ty)?,
            subject: optional(self.subject),
            time,
            time_text,
            datacontenttype: optional(self.datacontenttype),
            dataschema: optional(self.dataschema),
            extensions: extensions.collect(),
        })
    }

    /// A value without the quotes of a JSON string, if the record's `specversion` is quoted:
    /// Spring's header mapper writes all texts so. Otherwise quotes are part of the value.
    fn unquoted(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        match self.specversion {
            Some([b'"', ..]) => unquoted(value),
            _ => Cow::Borrowed(value),
        }
    }
}

/// The text of a JSON string, or any other value unchanged.
pub(super) fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    match value {
        [b'"', .., b'"'] => match serde_json::from_slice::<String>(value) {
            Ok(text) => Cow::Owned(text.into_bytes()),
            Err(_) => Cow::Borrowed(value),
        },
        _ => Cow::Borrowed(value),
    }
}

/// The text of an optional attribute or of its name. Bytes that are not UTF-8 are replaced.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn mandatory(name: &str, value: Option<Cow<'_, [u8]>>) -> Result<String, DecodeError> {
    match value.as_deref() {
        None => Err(DecodeError::attribute(name, "missing")),
        Some([]) => Err(DecodeError::attribute(name, "empty")),
        Some(value) => match std::str::from_utf8(value) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::attribute(name, "not UTF-8")),
        },
    }
}

/// The instant, or otherwise the unchanged text. An empty text is no time.
fn time(text: Option<Cow<'_, str>>) -> (Option<jiff::Timestamp>, Option<String>) {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return (None, None);
    };
    let parsed = text.parse().or_else(|error| match nanoseconds(&text) {
        Some(cut) => cut.parse(),
        None => Err(error),
    });
    match parsed {
        Ok(time) => (Some(time), None),
        Err(_) => (None, Some(text.into_owned())),
    }
}

/// A time without its digits beyond nanoseconds. None if it has no such digits.
fn nanoseconds(text: &str) -> Option<String> {
    let point = text.find('.')? + 1;
    let digits = text[point..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 9).then(|| format!("{}{}", &text[..point + 9], &text[point + digits..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_if_representable_else_text() {
        let check = |text: &str, expected: Option<&str>| {
            let expected = match expected {
                Some(instant) => (Some(instant.parse().expect(instant)), None),
                None => (None, Some(text.to_owned())),
            };
            assert_eq!(time(Some(text.into())), expected, "{text}");
        };
        check("2026-11-21T09:00:00+01:00", Some("2026-11-21T08:00:00Z"));
        let nanoseconds = Some("2026-01-01T00:00:00.123456789Z");
        check("2026-01-01T00:00:00.123456789012Z", nanoseconds);
        check("2026-01-01T01:00:00.1234567890+01:00", nanoseconds);
        check("9999-12-31T23:59:59.9999999Z", None);
        check("9999-12-31T23:59:59+14:00", None);
        check("9999-12-31T23:59:59.99999999999Z", None);
        check("2023-01-25T19:07:06.370582GMT", None);
        check("2026-11-21T08:00:00", None);
        check("1700000000", None);
        check(".", None);
        assert_eq!(time(Some("".into())), (None, None));
        assert_eq!(time(None), (None, None));
    }
}
