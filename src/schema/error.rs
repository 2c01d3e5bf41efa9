//! Errors of schemas, and of payloads that do not match them.

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
