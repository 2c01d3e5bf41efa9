//! What can be wrong with a schema, and with a payload that is held against one.

use jsonschema::ReferencingError;
use jsonschema::error::ValidationErrorKind;

/// A payload that does not follow its type's schema. Never holds the offending value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{ty} does not follow its schema at {pointer:?}: {keyword}")]
pub struct Violation {
    /// Event type with version.
    pub ty: String,
    /// JSON pointer to the offending place; for a required member that is missing, to where it should be. Empty for the
    /// payload itself. Its parts are member names, also of members that no schema names.
    pub pointer: String,
    /// The schema keyword that refused it.
    pub keyword: String,
}

impl Violation {
    /// Takes place and keyword from the validator's error, whose own message quotes the payload.
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
    /// A folder or file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The folder or file.
        path: std::path::PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A folder holds no schema.
    #[error("there is no file *.schema.json in {dir} or below it; check the folder")]
    Empty {
        /// The folder.
        dir: std::path::PathBuf,
    },
}

/// What is wrong with a document, which may be shown: it holds no payload.
pub(super) fn unusable(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "it refers to {uri}, and no other document is fetched: put what is needed under $defs"
        ),
        _ => format!("{error} (at {:?})", error.instance_path().as_str()),
    }
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
