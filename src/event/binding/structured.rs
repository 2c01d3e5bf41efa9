//! Structured content mode: one JSON object with attributes and payload as the record's value.

use super::draft::Draft;
use super::envelope::CONTENT_TYPE;
use super::{DecodeError, Decoded, Envelope, base64};
use crate::event::attributes::{is_attribute_name, is_mandatory};
use crate::event::{Attributes, Headers};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The prefix of a structured record's content type. The event format follows.
const MEDIA_TYPE: &[u8] = b"application/cloudevents";

/// The content type that is written.
const JSON_FORMAT: &str = "application/cloudevents+json; charset=UTF-8";

/// The event format in a content type (`+json`), without its parameters. None if the event is not
/// structured.
pub(super) fn format(content_type: &[u8]) -> Option<&[u8]> {
    let (media_type, format) = content_type
        .trim_ascii_start()
        .split_at_checked(MEDIA_TYPE.len())?;
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        return None;
    }
    format
        .split(|byte| *byte == b';')
        .next()
        .map(<[u8]>::trim_ascii)
}

/// An event in the JSON event format.
struct Document<'a, T> {
    attributes: &'a Attributes,
    data: &'a T,
}

impl<T: Serialize> Serialize for Document<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.attributes.entries() {
            map.serialize_entry(name, &value)?;
        }
        map.serialize_entry("data", self.data)?;
        map.end()
    }
}

pub(super) fn write<T: Serialize>(
    attributes: &Attributes,
    data: &T,
) -> Result<(Headers, Vec<u8>), serde_json::Error> {
    let value = serde_json::to_vec(&Document { attributes, data })?;
    let mut headers = Headers::new();
    headers.push(CONTENT_TYPE, Some(JSON_FORMAT.as_bytes()));
    Ok((headers, value))
}

/// Whether a value may be an event although no header marks it. A quick check, so that other
/// records are not parsed.
pub(super) fn is_unmarked(value: &[u8]) -> bool {
    value.trim_ascii_start().starts_with(b"{")
        && std::str::from_utf8(value).is_ok_and(|text| text.contains("\"specversion\""))
}

/// [`read`] of a value that no header marks. It is an event only if it is valid and its reader asks
/// for its type, and otherwise a raw record.
pub(super) fn read_unmarked<'v, R>(
    value: &'v [u8],
    asks_for: impl FnOnce(&str) -> Option<R>,
) -> Result<Decoded<'v, R>, DecodeError> {
    match read(Some(value), asks_for) {
        Ok(Decoded::Asked(asked, envelope)) => Ok(Decoded::Asked(asked, envelope)),
        Ok(Decoded::Other { .. }) | Err(_) => Err(DecodeError::NotAnEvent),
    }
}

pub(super) fn read<'v, R>(
    value: Option<&'v [u8]>,
    asks_for: impl FnOnce(&str) -> Option<R>,
) -> Result<Decoded<'v, R>, DecodeError> {
    let value = value.ok_or_else(|| DecodeError::Structured("the record has no value".into()))?;
    // Members stay text: the payload keeps its bytes, including large numbers.
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(value).map_err(|error| unreadable(&error))?;
    let ty = members.get("type").map(|raw| attribute_text(raw));
    let ty = ty.as_ref().and_then(Option::as_deref);
    let asked = ty.filter(|ty| !ty.is_empty()).map(asks_for);
    if let Some(None) = asked {
        return Ok(Decoded::Other { is_whole: true });
    }
    let texts: Vec<_> = members
        .iter()
        .filter(|(name, _)| *name != "data" && is_attribute_name(name.as_bytes()))
        .map(|(name, raw)| (name.as_str(), attribute_text(raw)))
        .collect();
    let mut draft = Draft::default();
    for (name, text) in &texts {
        if is_mandatory(name) && members.get(*name).is_some_and(|raw| !is_simple(raw)) {
            return Err(DecodeError::attribute(
                name,
                "not a string, boolean or integer",
            ));
        }
        draft.set(name.as_bytes(), text.as_deref().map(str::as_bytes));
    }
    let attributes = draft.finish()?;
    let binary = members.get("data_base64").filter(|raw| raw.get() != "null");
    let data = match (members.get("data"), binary) {
        (Some(raw), Some(_)) if raw.get() != "null" => {
            return Err(DecodeError::Structured(
                "it has both data and data_base64".into(),
            ));
        }
        (_, Some(raw)) => Some(Cow::Owned(binary_data(raw)?)),
        (Some(raw), None) => Some(data(raw, attributes.datacontenttype.as_deref())),
        (None, None) => None,
    };
    Decoded::asked(asked, Envelope { attributes, data })
}

/// Whether an attribute has a type of the specification's type system: a string, boolean or
/// integer, or absent.
fn is_simple(raw: &RawValue) -> bool {
    // No attribute justifies the tree that an array or an object may become.
    let is_nested = raw.get().starts_with(['[', '{']);
    !is_nested
        && match serde_json::from_str(raw.get()) {
            Ok(Value::Number(number)) => !number.is_f64(),
            Ok(_) => true,
            Err(_) => false,
        }
}

/// An attribute's text: the content of a string, or the JSON of any other value. None for `null`,
/// which means absent.
fn attribute_text(raw: &RawValue) -> Option<String> {
    match raw.get() {
        "null" => None,
        json => Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
    }
}

/// The payload in `data`: its JSON text, or the content of a string if the content type is not
/// JSON.
fn data<'a>(raw: &'a RawValue, content_type: Option<&str>) -> Cow<'a, [u8]> {
    if !content_type.is_none_or(is_json)
        && let Ok(text) = serde_json::from_str::<String>(raw.get())
    {
        return Cow::Owned(text.into_bytes());
    }
    Cow::Borrowed(raw.get().as_bytes())
}

/// Whether a media type's subtype is `json` or ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let subtype = media_type.rsplit('/').next().unwrap_or_default();
    subtype
        .rsplit('+')
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case("json"))
}

fn binary_data(raw: &RawValue) -> Result<Vec<u8>, DecodeError> {
    serde_json::from_str::<String>(raw.get())
        .ok()
        .and_then(|text| base64::decode(text.as_bytes()))
        .ok_or_else(|| DecodeError::Structured("data_base64 is not a Base64 string".into()))
}

/// Reports the position only: the parser's own message can quote the record.
fn unreadable(error: &serde_json::Error) -> DecodeError {
    let problem = match error.classify() {
        serde_json::error::Category::Data => "it is not a JSON object",
        _ => "it is not JSON",
    };
    DecodeError::Structured(format!(
        "{problem} (line {}, column {})",
        error.line(),
        error.column()
    ))
}
