//! The catalogue of event types: JSON Schema documents, compiled once, no remote references.

use serde_json::Value;

/// Compiled schemas by event type. Cheap to share behind an `Arc`.
pub struct Catalogue {}

/// A payload that does not follow its type's schema. Never holds the offending value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ty} does not follow its schema at {pointer:?}: {keyword}")]
pub struct Violation {
    /// Event type with version.
    pub ty: String,
    /// JSON pointer to the offending place.
    pub pointer: String,
    /// The schema keyword that refused it.
    pub keyword: String,
}

/// Why a catalogue could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// Not a usable JSON Schema.
    #[error("the schema of {ty} is not usable: {reason}")]
    Invalid {
        /// Event type.
        ty: String,
        /// What is wrong.
        reason: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Why a payload was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidationError {
    /// The catalogue has no such type.
    #[error("no schema for event type {0}")]
    UnknownType(String),
    /// The payload does not follow the schema.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl Catalogue {
    /// Compiles `(event type, schema JSON text)` pairs.
    pub fn from_texts<'a>(
        _schemas: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SchemaError> {
        todo!()
    }
    /// Reads every `*.schema.json` below a folder; the event type is the schema's `title`... see docs.
    pub fn from_dir(_dir: &std::path::Path) -> Result<Self, SchemaError> {
        todo!()
    }
    /// The event types, sorted.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
    /// The schema document of a type.
    pub fn schema(&self, _ty: &str) -> Option<&Value> {
        todo!()
    }
    /// Checks a payload.
    pub fn validate(&self, _ty: &str, _data: &Value) -> Result<(), ValidationError> {
        todo!()
    }
}
