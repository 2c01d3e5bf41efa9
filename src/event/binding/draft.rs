//! Attributes while they are read: bytes by name, checked only when all are collected.
//!
//! Owns what makes attributes valid, for both content modes, so that they cannot differ in it. Must not know where the
//! bytes come from.

use super::DecodeError;
use crate::event::Attributes;
use crate::event::attributes::{SPEC_VERSION, is_extension_name};
use std::collections::BTreeMap;

/// Attributes as they were found. A later value replaces an earlier one, and so does a later absence.
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
    /// Notes an attribute; a name that no attribute can have is left alone.
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

    /// Whether all mandatory attributes are there.
    pub(super) fn is_complete(&self) -> bool {
        [self.specversion, self.id, self.source, self.ty]
            .iter()
            .all(Option::is_some)
    }

    /// Checks what was collected.
    pub(super) fn finish(self) -> Result<Attributes, DecodeError> {
        let specversion = mandatory("specversion", self.specversion)?;
        if specversion != SPEC_VERSION {
            return Err(DecodeError::attribute(
                "specversion",
                "only 1.0 is understood",
            ));
        }
        let mut extensions = BTreeMap::new();
        for (name, value) in self.extensions {
            // The name was found to be ASCII when it was set.
            let name = String::from_utf8_lossy(name).into_owned();
            let value = text(&name, value)?.to_owned();
            extensions.insert(name, value);
        }
        Ok(Attributes {
            id: mandatory("id", self.id)?.to_owned(),
            source: mandatory("source", self.source)?.to_owned(),
            ty: mandatory("type", self.ty)?.to_owned(),
            subject: optional("subject", self.subject)?,
            time: time(self.time)?,
            datacontenttype: optional("datacontenttype", self.datacontenttype)?,
            dataschema: optional("dataschema", self.dataschema)?,
            extensions,
        })
    }
}

fn text<'a>(name: &str, value: &'a [u8]) -> Result<&'a str, DecodeError> {
    std::str::from_utf8(value).map_err(|_| DecodeError::attribute(name, "not UTF-8"))
}

fn mandatory<'a>(name: &str, value: Option<&'a [u8]>) -> Result<&'a str, DecodeError> {
    match value {
        None => Err(DecodeError::attribute(name, "missing")),
        Some([]) => Err(DecodeError::attribute(name, "empty")),
        Some(value) => text(name, value),
    }
}

fn optional(name: &str, value: Option<&[u8]>) -> Result<Option<String>, DecodeError> {
    value
        .map(|value| text(name, value).map(str::to_owned))
        .transpose()
}

fn time(value: Option<&[u8]>) -> Result<Option<jiff::Timestamp>, DecodeError> {
    value
        .map(|value| {
            text("time", value)?
                .parse()
                // The parser's own message quotes the value.
                .map_err(|_| DecodeError::attribute("time", "not an RFC 3339 date and time"))
        })
        .transpose()
}
