//! Errors of schemas, and of payloads that do not match them.

use jsonschema::ReferencingError;
use jsonschema::error::ValidationErrorKind;

/// A payload that does not match its type's schema. Never contains the invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ty} does not follow its schema at {pointer:?}: {keyword}")]
pub struct Violation {
    /// The event type with its version.
    pub ty: String,
    /// JSON pointer to the invalid value, or to the place of a required member that is missing.
    /// Empty for the payload itself. Its parts are member names, including members that no schema
    /// names.
    pub pointer: String,
    /// The schema keyword that the value violates.
    pub keyword: String,
}

impl Violation {
    /// Takes pointer and keyword from the validator's error, whose own message quotes the payload.
    pub(super) fn new(ty: &str, error: &jsonschema::ValidationError<'_>) -> Self {
        let mut pointer = error.instance_path().as_str().to_owned();
        if let ValidationErrorKind::Required { property } = error.kind() {
            let name = property.as_str().unwrap_or_default();
            pointer.push('/');
            pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
        }
        Self {
            ty: ty.to_owned(),
            pointer,
            keyword: error.kind().keyword().to_owned(),
        }
    }
}

/// Why a catalogue cannot be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A document is not a usable JSON Schema.
    #[error("the schema of {ty} is not usable: {reason}")]
    Invalid {
        /// The event type.
        ty: String,
        /// The fault of the document.
        reason: String,
    },
    /// A folder or file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The folder or file.
        path: std::path::PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A folder contains no schema.
    #[error("there is no file *.schema.json in {dir} or below it; check the folder")]
    Empty {
        /// The folder.
        dir: std::path::PathBuf,
    },
}

/// The fault of a document. It may be shown, as it contains no payload.
pub(super) fn unusable(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "it refers to {uri}, and no other document is fetched: put what is needed under $defs"
        ),
        _ => format!("{error} (at {:?})", error.instance_path().as_str()),
    }
}

/// Why a payload is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidationError {
    /// The catalogue has no schema for this event type.
    #[error("no schema for event type {0}")]
    UnknownType(String),
    /// The payload does not match its schema.
    #[error(transparent)]
    Violation(#[from] Violation),
}
