//! CloudEvents 1.0 context attributes.

use std::collections::BTreeMap;

/// CloudEvents context attributes. `specversion` is always `1.0` and therefore no field.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// Unique within `source`.
    pub id: String,
    /// URI reference of what produced the event.
    pub source: String,
    /// The event type with its version.
    pub ty: String,
    /// What the event is about, within `source`.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<jiff::Timestamp>,
    /// Media type of the payload.
    pub datacontenttype: Option<String>,
    /// URI of the schema that the payload follows.
    pub dataschema: Option<String>,
    /// Extension attributes by name (lower-case letters and digits).
    pub extensions: BTreeMap<String, String>,
}

impl Attributes {
    /// The mandatory attributes; everything else absent.
    pub fn new(id: impl Into<String>, source: impl Into<String>, ty: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            ty: ty.into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
        }
    }
}
