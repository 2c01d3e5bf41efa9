//! Binary mode: the attributes are `ce-*` headers, and the body is the data.

use super::header_value;
use crate::http::{FieldError, Problem, ProblemKind};
use crate::post::new_event::{NewEvent, bounded};
use axum::http::HeaderMap;
use axum::http::header::AsHeaderName;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The prefix of an attribute's name in its header.
const PREFIX: &str = "ce-";

/// The event of a request in binary mode. `name` is the event type in the path: then no header is
/// needed. Otherwise `ce-specversion` and `ce-type` are.
///
/// # Errors
/// [`ProblemKind::Malformed`], with all faults of the headers.
pub(in crate::post) fn binary(
    headers: &HeaderMap,
    name: Option<&str>,
    body: &str,
) -> Result<NewEvent, Problem> {
    let (attributes, mut faults) = attributes(headers);
    match attributes.specversion.as_deref() {
        Some("1.0") => {}
        Some(_) => faults.push(fault("specversion", "is not 1.0")),
        None if name.is_some() || has_fault(&faults, "specversion") => {}
        None => faults.push(fault("specversion", "is missing")),
    }
    if attributes.has_content_type {
        faults.push(fault(
            "datacontenttype",
            "must not be sent: Content-Type has it",
        ));
    }
    let ty = match (name, attributes.ty) {
        (Some(name), Some(ty)) if name != ty => {
            faults.push(fault("type", "is not the type in the path"));
            String::new()
        }
        (Some(name), _) => name.to_owned(),
        (None, Some(ty)) => ty.into_owned(),
        (None, None) => {
            if !has_fault(&faults, "type") {
                faults.push(fault("type", "is missing"));
            }
            String::new()
        }
    };
    if !faults.is_empty() {
        let detail = "the event's headers are invalid; an event in the body is sent as \
                      application/cloudevents+json, data without headers to /events/{type}";
        return Err(Problem::new(ProblemKind::Malformed, detail).with_errors(faults));
    }
    let data = RawValue::from_string(body.to_owned()).map_err(|error| {
        // The parser's messages about syntax quote nothing.
        Problem::new(
            ProblemKind::Malformed,
            format!("the body is not JSON: {error}"),
        )
    })?;
    let owned = |text: Option<Cow<'_, str>>| text.map(Cow::into_owned);
    let mut event = NewEvent::new(ty, data)
        .with_id(owned(attributes.id))
        .with_source(owned(attributes.source))
        .with_subject(owned(attributes.subject))
        .with_time(owned(attributes.time));
    event.extensions = attributes.extensions;
    Ok(event)
}

/// The attribute of this name in its header, if it is there.
///
/// # Errors
/// [`ProblemKind::Malformed`] if its value cannot be read, or is there more than once.
pub(in crate::post) fn attribute(
    headers: &HeaderMap,
    name: &str,
) -> Result<Option<String>, Problem> {
    let header = header(name);
    if !headers.contains_key(header.as_str()) {
        return Ok(None);
    }
    let value = only_value(headers, header.as_str()).map_err(|detail| {
        let problem = Problem::new(ProblemKind::Malformed, "a header of the event is invalid");
        problem.with_errors(vec![fault(name, detail)])
    })?;
    Ok(Some(value.into_owned()))
}

/// The decoded value of a header.
fn only_value(
    headers: &HeaderMap,
    header: impl AsHeaderName,
) -> Result<Cow<'_, str>, &'static str> {
    let mut values = headers.get_all(header).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => header_value::decode(value.as_bytes()),
        _ => Err("is there more than once"),
    }
}

/// The attributes in the headers.
#[derive(Default)]
struct HeaderAttributes<'h> {
    specversion: Option<Cow<'h, str>>,
    ty: Option<Cow<'h, str>>,
    id: Option<Cow<'h, str>>,
    source: Option<Cow<'h, str>>,
    subject: Option<Cow<'h, str>>,
    time: Option<Cow<'h, str>>,
    has_content_type: bool,
    extensions: BTreeMap<String, String>,
}

impl<'h> HeaderAttributes<'h> {
    fn set(&mut self, name: &str, value: Cow<'h, str>) {
        let field = match name {
            "specversion" => &mut self.specversion,
            "type" => &mut self.ty,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => {
                self.has_content_type = true;
                return;
            }
            _ => {
                self.extensions.insert(name.to_owned(), value.into_owned());
                return;
            }
        };
        *field = Some(value);
    }
}

/// The attributes in the headers, and the faults of their values.
fn attributes(headers: &HeaderMap) -> (HeaderAttributes<'_>, Vec<FieldError>) {
    let (mut attributes, mut faults) = (HeaderAttributes::default(), Vec::new());
    for header in headers.keys() {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        match only_value(headers, header) {
            Ok(value) => attributes.set(name, value),
            Err(detail) => faults.push(fault(name, detail)),
        }
    }
    (attributes, faults)
}

/// A fault of a header, which no pointer into the body can name.
fn fault(name: &str, detail: &str) -> FieldError {
    FieldError {
        pointer: String::new(),
        detail: format!("the header {} {detail}", header(name)),
    }
}

fn header(name: &str) -> String {
    format!("{PREFIX}{}", bounded(name))
}

/// Whether a fault of this attribute is known already.
fn has_fault(faults: &[FieldError], name: &str) -> bool {
    let begin = format!("the header {} ", header(name));
    faults.iter().any(|fault| fault.detail.starts_with(&begin))
}
