//! CloudEvents 1.0 context attributes.
//!
//! Owns their names and what a valid set of them is. Must not know how they stand in a record: that is the binding's.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// The one `specversion` that is written and read.
pub(crate) const SPEC_VERSION: &str = "1.0";

/// Names that no extension may take: the attributes of the core specification, and the payload's member of the JSON
/// event format.
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

/// CloudEvents context attributes. `specversion` is always `1.0` and therefore no field.
///
/// The fields are free to set; [`encode`](super::encode) refuses a set that no reader could take back.
#[derive(Debug, Clone, PartialEq)]
pub struct Attributes {
    /// Unique within `source`; never empty.
    pub id: String,
    /// URI reference of what produced the event; never empty.
    pub source: String,
    /// The event type with its version; never empty.
    pub ty: String,
    /// What the event is about, within `source`.
    pub subject: Option<String>,
    /// When it happened. Written in UTC; an offset that was read is not kept, the instant is. Digits beyond nanoseconds are cut.
    pub time: Option<jiff::Timestamp>,
    /// The text of a `time` that was read and is not an instant that [`time`](Self::time) can hold: no RFC 3339, or a moment
    /// after 9999-12-30T22:00:00Z such as the last one of .NET. Written as it is where `time` is absent.
    pub time_text: Option<String>,
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
            time_text: None,
            datacontenttype: None,
            dataschema: None,
            extensions: BTreeMap::new(),
        }
    }

    /// All attributes that are present, `specversion` first, as name and text.
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

    /// What makes this set unfit to be written, if anything.
    pub(crate) fn flaw(&self) -> Option<String> {
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
                    "{name:?} cannot name an extension attribute: use lower-case letters and digits, and no name of \
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
