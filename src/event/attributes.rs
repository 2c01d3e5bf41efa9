//! CloudEvents 1.0 context attributes.
//!
//! Owns their names and the rules of a valid set. Does not know how they are encoded in a record:
//! that is the binding's task.
//!
//! Reference: CloudEvents 1.0.2, section "Context Attributes". The rules for names follow it
//! strictly when an event is written. A received name that breaks them is ignored, see
//! [`decode`](super::decode).

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The only `specversion` that is written and read.
pub(crate) const SPEC_VERSION: &str = "1.0";

/// Names that no extension may have: the attributes of the core specification, and the payload's
/// member of the JSON event format.
const RESERVED: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
];

/// CloudEvents context attributes. `specversion` is always `1.0` and has no field.
///
/// The fields may be set freely. [`encode`](super::encode) refuses a set that no reader could
/// decode.
///
/// ```
/// use evenkeel::event::Attributes;
///
/// let mut attributes = Attributes::new("row-17", "/bank/import", "bank.account-opened.v1");
/// attributes.subject = Some("accounts/a-1".to_owned());
/// attributes.extensions.insert("tenant".to_owned(), "north".to_owned());
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Attributes {
    /// Unique within `source`: the second half of the event's identity. Never empty. An import that
    /// may run twice derives it from the data, so that a row has the same id each time.
    pub id: String,
    /// URI reference of the producer of the event: the first half of its identity. Never empty.
    pub source: String,
    /// The event type with its version. Never empty. It selects the handler and the schema.
    pub ty: String,
    /// The subject of the event, within `source`.
    pub subject: Option<String>,
    /// When the event happened. Written in UTC: the instant of a received time is kept, its offset
    /// is not. Digits beyond nanoseconds are cut.
    pub time: Option<jiff::Timestamp>,
    /// The text of a received `time` that [`time`](Self::time) cannot hold: not RFC 3339, or after
    /// 9999-12-30T22:00:00Z, such as the last instant of .NET. Written unchanged if `time` is
    /// absent.
    pub time_text: Option<String>,
    /// Media type of the payload. [`Event::new`](super::Event::new) sets `application/json`, the
    /// only format that this library writes.
    pub datacontenttype: Option<String>,
    /// URI of the schema of the payload. It is passed on unchanged: payloads are validated by their
    /// type.
    pub dataschema: Option<String>,
    /// Extension attributes by name: lower-case letters and digits, and no name of the
    /// specification. Values are texts; a received number or boolean becomes its JSON text.
    pub extensions: BTreeMap<String, String>,
}

impl Attributes {
    /// Creates a set of the mandatory attributes. All others are absent.
    pub fn new(id: impl Into<String>, source: impl Into<String>, ty: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            source: source.into(),
            ty: ty.into(),
            subject: None,
            time: None,
            time_text: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
        }
    }

    /// The attributes that are present, with name and text, `specversion` first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let time = match self.time {
            Some(time) => Some(Cow::Owned(time.to_string())),
            None => self.time_text.as_deref().map(Cow::Borrowed),
        };
        let optional = [
            ("subject", self.subject.as_deref().map(Cow::Borrowed)),
            ("time", time),
            (
                "datacontenttype",
                self.datacontenttype.as_deref().map(Cow::Borrowed),
            ),
            ("dataschema", self.dataschema.as_deref().map(Cow::Borrowed)),
        ];
        let extensions = self
            .extensions
            .iter()
            .map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str())));
        [
            ("specversion", SPEC_VERSION),
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.ty),
        ]
        .map(|(name, value)| (name, Cow::Borrowed(value)))
        .into_iter()
        .chain(
            optional
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .chain(extensions)
    }

    /// The reason why this set cannot be written, if there is one.
    pub(crate) fn invalid_reason(&self) -> Option<String> {
        let mandatory = [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.ty),
        ];
        for (name, value) in mandatory {
            if value.is_empty() {
                return Some(format!("the attribute {name} is empty"));
            }
        }
        self.extensions
            .keys()
            .find(|name| !is_extension_name(name.as_bytes()))
            .map(|name| {
                format!(
                    "{name:?} cannot name an extension attribute: use lower-case letters and \
                     digits, and no name of \
                     the specification"
                )
            })
    }
}

/// Whether an event must have the attribute.
pub(crate) fn is_mandatory(name: &str) -> bool {
    ["specversion", "id", "source", "type"].contains(&name)
}

/// Whether these bytes can name an attribute: lower-case ASCII letters and digits.
pub(crate) fn is_attribute_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether these bytes can name an extension attribute.
pub(crate) fn is_extension_name(name: &[u8]) -> bool {
    is_attribute_name(name) && !RESERVED.iter().any(|reserved| reserved.as_bytes() == name)
}
