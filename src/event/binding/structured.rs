//! Structured content mode: one JSON object with attributes and payload as the record's value.

use super::draft::Draft;
use super::{CONTENT_TYPE, DecodeError, Envelope, base64};
use crate::event::attributes::is_attribute_name;
use crate::event::{Attributes, Headers};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a structured record's content type begins with; the event format follows.
const MEDIA_TYPE: &[u8] = b"application/cloudevents";

/// The content type that is written.
const JSON_FORMAT: &str = "application/cloudevents+json; charset=UTF-8";

/// The event format in a content type (`+json`), without its parameters; none when the event is not structured.
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

pub(super) fn read(value: Option<&[u8]>) -> Result<Envelope<'_>, DecodeError> {
    let value = value.ok_or_else(|| DecodeError::Structured("the record has no value".into()))?;
    // Members stay text: the payload is handed on as the bytes it came in, numbers of any size included.
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(value).map_err(|error| unreadable(&error))?;
    let texts = members
        .iter()
        .filter(|(name, _)| *name != "data" && is_attribute_name(name.as_bytes()))
        .map(|(name, raw)| Ok((name.as_bytes(), attribute_text(name, raw)?)))
        .collect::<Result<Vec<_>, DecodeError>>()?;
    let mut draft = Draft::default();
    for (name, text) in &texts {
        draft.set(name, text.as_ref().map(String::as_bytes));
    }
    let attributes = draft.finish()?;
    let data = match (members.get("data"), members.get("data_base64")) {
        (Some(_), Some(_)) => {
            return Err(DecodeError::Structured(
                "it has both data and data_base64".into(),
            ));
        }
        (Some(raw), None) => Some(data(raw, attributes.datacontenttype.as_deref())),
        (None, Some(raw)) => Some(Cow::Owned(binary_data(raw)?)),
        (None, None) => None,
    };
    Ok(Envelope { attributes, data })
}

/// An attribute's text in the type system's canonical form; none for `null`, which means absent.
fn attribute_text(name: &str, raw: &RawValue) -> Result<Option<String>, DecodeError> {
    // No attribute is worth the tree that an array or an object may become.
    let is_nested = raw.get().starts_with(['[', '{']);
    match serde_json::from_str(if is_nested { "[]" } else { raw.get() }) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Bool(flag)) => Ok(Some(flag.to_string())),
        Ok(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        _ => Err(DecodeError::attribute(
            name,
            "not a string, boolean or integer",
        )),
    }
}

/// The payload in `data`: its JSON text, except that a string stands for itself where the content type is not JSON.
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

/// Says where, not what: the parser's own message can quote the record.
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
