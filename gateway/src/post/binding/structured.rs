//! Structured and batched mode: the JSON event format.

use crate::http::{FieldError, Problem, ProblemKind};
use crate::post::new_event::{NewEvent, bounded, escaped};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The most members of an event: more than all attributes, extensions and data together.
const MEMBERS_MAX: usize = 64;

/// The event of a body.
///
/// # Errors
/// [`ProblemKind::Malformed`], with all faults of the event.
pub(in crate::post) fn structured(text: &str) -> Result<NewEvent, Problem> {
    let mut faults = Vec::new();
    let event = event(text, "", &mut faults);
    event
        .filter(|_| faults.is_empty())
        .ok_or_else(|| malformed(faults))
}

/// The events of a body, at most `batch_max`.
///
/// # Errors
/// [`ProblemKind::TooLarge`] for more events, and [`ProblemKind::Malformed`] for a body that is no
/// array, is an empty one, or has a malformed event. All faults are named, up to 50.
pub(in crate::post) fn batch(text: &str, batch_max: usize) -> Result<Vec<NewEvent>, Problem> {
    let mut faults = Vec::new();
    if !text.trim_ascii_start().starts_with('[') {
        faults.push(fault("", "is not a JSON array of events"));
        return Err(malformed(faults));
    }
    let items = match parse(text, Items { batch_max }) {
        Ok(items) => items,
        // The only error that the visitor itself makes.
        Err(error) if error.is_data() => {
            let detail = format!("at most {batch_max} events in a request");
            return Err(Problem::new(ProblemKind::TooLarge, detail));
        }
        Err(error) => {
            faults.push(fault("", &format!("is not JSON: {error}")));
            return Err(malformed(faults));
        }
    };
    if items.is_empty() {
        faults.push(fault("", "is an empty batch"));
    }
    let items = items.into_iter().enumerate();
    let events =
        items.filter_map(|(index, raw)| event(raw.get(), &format!("/{index}"), &mut faults));
    let events: Vec<_> = events.collect();
    if faults.is_empty() {
        Ok(events)
    } else {
        Err(malformed(faults))
    }
}

fn malformed(mut faults: Vec<FieldError>) -> Problem {
    faults.truncate(50);
    Problem::new(ProblemKind::Malformed, "the event cannot be read").with_errors(faults)
}

fn fault(pointer: &str, detail: &str) -> FieldError {
    FieldError {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    }
}

fn parse<'de, S: DeserializeSeed<'de>>(text: &'de str, seed: S) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The event of a JSON object at this pointer. Its faults are added; with one it is not to be used.
fn event(text: &str, pointer: &str, faults: &mut Vec<FieldError>) -> Option<NewEvent> {
    if !text.trim_ascii_start().starts_with('{') {
        faults.push(fault(pointer, "is not a JSON object"));
        return None;
    }
    let members = match parse(text, Members) {
        Ok(members) => members,
        Err(error) => {
            faults.push(fault(pointer, &format!("is not JSON: {error}")));
            return None;
        }
    };
    if let Some(name) = members.fault {
        let detail = "is there twice, or one member too many";
        faults.push(fault(
            &format!("{pointer}/{}", escaped(&bounded(&name))),
            detail,
        ));
        return None;
    }
    let mut draft = Draft {
        pointer,
        faults,
        event: NewEvent::new("", RawValue::NULL.to_owned()),
        has_specversion: false,
    };
    let (mut data, mut base64) = (None, None);
    for (name, raw) in members.members {
        match name.as_str() {
            "data" => data = Some(raw),
            "data_base64" if raw.get() != "null" => base64 = Some(raw),
            "data_base64" => {}
            _ => draft.set(name, raw),
        }
    }
    draft.set_data(data, base64);
    draft.finish()
}

/// An event while its members are read.
struct Draft<'a> {
    pointer: &'a str,
    faults: &'a mut Vec<FieldError>,
    event: NewEvent,
    has_specversion: bool,
}

impl Draft<'_> {
    fn fault(&mut self, name: &str, detail: &str) {
        let pointer = format!("{}/{}", self.pointer, escaped(&bounded(name)));
        self.faults.push(fault(&pointer, detail));
    }

    /// Sets an attribute. `null` is an absent one.
    fn set(&mut self, name: String, raw: &RawValue) {
        let json = raw.get();
        if json == "null" {
            return;
        }
        let is_text = json.starts_with('"');
        let text = if is_text {
            serde_json::from_str::<String>(json).ok()
        } else {
            Some(json.to_owned())
        };
        let Some(text) = text else {
            return self.fault(&name, "is not a valid JSON string");
        };
        let field = match name.as_str() {
            "specversion" => {
                self.has_specversion = true;
                if !is_text || text != "1.0" {
                    self.fault(&name, "is not the string 1.0");
                }
                return;
            }
            "type" => {
                self.event.ty.clone_from(&text);
                None
            }
            "id" => Some(&mut self.event.id),
            "source" => Some(&mut self.event.source),
            "subject" => Some(&mut self.event.subject),
            "time" => Some(&mut self.event.time),
            _ if json.starts_with(['[', '{']) => {
                return self.fault(&name, "is not a string, number or boolean");
            }
            _ => {
                self.event.extensions.insert(name, text);
                return;
            }
        };
        if let Some(field) = field {
            *field = Some(text);
        }
        if !is_text {
            self.fault(&name, "is not a string");
        }
    }

    fn set_data(&mut self, data: Option<&RawValue>, base64: Option<&RawValue>) {
        let (member, data) = match (data, base64) {
            (Some(data), Some(_)) if data.get() != "null" => {
                return self.fault("data_base64", "is there beside data");
            }
            (_, Some(base64)) => match decoded(base64) {
                Ok(data) => ("data_base64", data),
                Err(detail) => return self.fault("data_base64", detail),
            },
            (Some(data), None) => ("data", data.to_owned()),
            (None, None) => return self.fault("data", "is missing"),
        };
        self.event.pointer = format!("{}/{member}", self.pointer);
        self.event.data = data;
    }

    fn finish(mut self) -> Option<NewEvent> {
        let before = self.faults.len();
        if !self.has_specversion {
            self.fault("specversion", "is missing");
        }
        if self.event.ty.is_empty() {
            self.fault("type", "is missing or empty");
        }
        (self.faults.len() == before).then_some(self.event)
    }
}

/// The JSON in a `data_base64`.
fn decoded(raw: &RawValue) -> Result<Box<RawValue>, &'static str> {
    let text = serde_json::from_str::<String>(raw.get()).map_err(|_| "is not a string")?;
    let bytes = STANDARD.decode(text).map_err(|_| "is not Base64")?;
    let json = String::from_utf8(bytes).map_err(|_| "has data that is not UTF-8")?;
    RawValue::from_string(json).map_err(|_| "has data that is not JSON")
}

/// Reads the items of an array.
struct Items {
    batch_max: usize,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element::<&'de RawValue>()? {
            if items.len() == self.batch_max {
                return Err(A::Error::custom("too many items"));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// Reads the members of an object, in their order.
struct Members;

/// The members of an object.
struct ReadMembers<'de> {
    members: Vec<(String, &'de RawValue)>,
    /// The first name that is there twice, or that is one too many.
    fault: Option<String>,
}

impl<'de> DeserializeSeed<'de> for Members {
    type Value = ReadMembers<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = ReadMembers<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(String, &'de RawValue)> = Vec::new();
        let mut fault = None;
        while let Some(name) = access.next_key::<String>()? {
            let is_there = members.iter().any(|(known, _)| *known == name);
            if is_there || members.len() == MEMBERS_MAX {
                fault = Some(name);
                access.next_value::<IgnoredAny>()?;
                // The rest is read for its syntax only.
                while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                break;
            }
            members.push((name, access.next_value()?));
        }
        Ok(ReadMembers { members, fault })
    }
}
