//! An event as a caller wants to post it, before any check. Knows no protocol.

use crate::http::FieldError;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The most bytes of a pointer in an error. Pointers hold member names, which can be long.
const POINTER_BYTES_MAX: usize = 256;

/// An event as a caller wants to post it. [`Posting::accept`](super::Posting::accept) checks and
/// completes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewEvent {
    /// The event type.
    pub ty: String,
    /// The id, 1 to 200 visible characters. None: the gateway creates one.
    pub id: Option<String>,
    /// The source. None, or that of the caller.
    pub source: Option<String>,
    /// The subject, at most 1 KiB.
    pub subject: Option<String>,
    /// When the event happened, as RFC 3339. None: now.
    pub time: Option<String>,
    /// Extension attributes, at most 16, by name. `datacontenttype` may be here if it is JSON.
    /// `traceparent` and `tracestate` are ignored: an event has the trace of its request.
    pub extensions: BTreeMap<String, String>,
    /// The data, as it was written.
    pub data: Box<RawValue>,
    /// JSON Pointer (RFC 6901) to the data in the request's body; empty if the data is the whole
    /// body. It begins the pointers of errors. Where it ends with `/data`, the attributes are
    /// expected beside it.
    pub pointer: String,
}

impl NewEvent {
    /// Creates an event with the gateway's id, source and time; see the fields for the rest.
    pub fn new(ty: impl Into<String>, data: Box<RawValue>) -> Self {
        Self {
            ty: ty.into(),
            id: None,
            source: None,
            subject: None,
            time: None,
            extensions: BTreeMap::new(),
            data,
            pointer: String::new(),
        }
    }

    /// Sets the id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<Option<String>>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the source.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Option<String>>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the subject.
    #[must_use]
    pub fn with_subject(mut self, subject: impl Into<Option<String>>) -> Self {
        self.subject = subject.into();
        self
    }

    /// Sets the time.
    #[must_use]
    pub fn with_time(mut self, time: impl Into<Option<String>>) -> Self {
        self.time = time.into();
        self
    }

    /// Adds an extension attribute.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.insert(name.into(), value.into());
        self
    }

    /// Sets the pointer to the data in the request's body.
    #[must_use]
    pub fn with_pointer(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = pointer.into();
        self
    }

    /// An error about an attribute. Its detail begins with the attribute's name, because an
    /// attribute in a header has no pointer.
    pub(super) fn attribute_error(&self, name: &str, detail: &str) -> FieldError {
        let members = ["/data", "/data_base64"];
        let base = members
            .iter()
            .find_map(|member| self.pointer.strip_suffix(member));
        let pointer = base.map(|base| format!("{base}/{}", escaped(&bounded(name))));
        FieldError {
            pointer: pointer.unwrap_or_default(),
            detail: format!("{} {detail}", bounded(name)),
        }
    }

    /// An error about a value in the data. `pointer` is relative to the data.
    pub(super) fn data_error(&self, pointer: &str, detail: &str) -> FieldError {
        let pointer = bounded(pointer);
        // The decoded data is no part of the body, so no pointer leads into it.
        if self.pointer.ends_with("/data_base64") && !pointer.is_empty() {
            return FieldError {
                pointer: self.pointer.clone(),
                detail: format!("{detail} (at {pointer} of the decoded data)"),
            };
        }
        FieldError {
            pointer: format!("{}{pointer}", self.pointer),
            detail: detail.to_owned(),
        }
    }
}

/// A member name as a part of a JSON Pointer.
pub(super) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A text that is cut after 256 bytes.
pub(super) fn bounded(text: &str) -> String {
    if text.len() <= POINTER_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=POINTER_BYTES_MAX)
        .rev()
        .find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or_default()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pointer: &str) -> NewEvent {
        let data = RawValue::from_string("{}".to_owned()).expect("JSON");
        NewEvent::new("bank.opened.v1", data).with_pointer(pointer)
    }

    #[test]
    fn errors_point_into_the_requests_body() {
        for (pointer, attribute, data) in [
            ("", "", "/cents"),
            ("/data", "/time", "/data/cents"),
            ("/7/data", "/7/time", "/7/data/cents"),
            ("/events/0/data", "/events/0/time", "/events/0/data/cents"),
            ("/data_base64", "/time", "/data_base64"),
        ] {
            let event = at(pointer);
            assert_eq!(
                event.attribute_error("time", "is odd").pointer,
                attribute,
                "{pointer}"
            );
            assert_eq!(
                event.data_error("/cents", "is odd").pointer,
                data,
                "{pointer}"
            );
        }
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let error = at("/data").data_error(&"/€".repeat(500), "is odd");
        assert!(error.pointer.len() < 300, "{}", error.pointer.len());
        assert_eq!(
            at("/data").attribute_error("a/b~c", "is odd").pointer,
            "/a~1b~0c"
        );
    }
}
