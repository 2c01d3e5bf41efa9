//! The catalogue of event types: JSON Schema documents, compiled once, without remote references.
//!
//! Owns the validation of payloads. Knows neither envelope nor client, and never fetches a
//! document: one that refers to another document is refused.

mod error;
mod weight;

pub use error::{SchemaError, ValidationError, Violation};

use jsonschema::{Draft, PatternOptions, Validator};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// The suffix of a schema's file name, after the event type.
const FILE_SUFFIX: &str = ".schema.json";

/// The only dialect that a document may name in `$schema`.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Compiled schemas by event type. Share it behind an `Arc`.
///
/// Documents are JSON Schema draft 2020-12. `format` is validated, and an unknown format is
/// refused, so that a misspelt one does not accept everything. Patterns run in linear time, so that
/// no payload can stall a consumer. Look-around and back-references, which cannot, are refused.
///
/// # Examples
/// ```
/// use evenkeel::schema::{Catalogue, ValidationError};
/// use serde_json::json;
///
/// let schema = r#"{
///     "type": "object",
///     "properties": {"pieces": {"type": "integer", "minimum": 1}}
/// }"#;
/// let catalogue = Catalogue::from_texts([("depot.counted.v1", schema)])?;
///
/// assert!(catalogue.validate("depot.counted.v1", &json!({"pieces": 3})).is_ok());
/// let refused = catalogue.validate("depot.counted.v1", &json!({"pieces": 0}));
/// let Err(ValidationError::Violation(violation)) = refused else {
///     panic!("0 is below the minimum")
/// };
/// assert_eq!((violation.pointer.as_str(), violation.keyword.as_str()), ("/pieces", "minimum"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Catalogue {
    schemas: BTreeMap<String, Schema>,
}

/// A document and its compiled validator.
struct Schema {
    document: Value,
    validator: Validator,
}

impl Catalogue {
    /// Compiles pairs of event type and schema as JSON text.
    ///
    /// # Errors
    /// Returns [`SchemaError::Invalid`] for the first document that is not JSON, is not a valid
    /// schema of draft 2020-12, refers to another document, or is the second of its event type.
    pub fn from_texts<'a>(
        schemas: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SchemaError> {
        let mut catalogue = Self {
            schemas: BTreeMap::new(),
        };
        for (ty, text) in schemas {
            catalogue.add(ty, text)?;
        }
        Ok(catalogue)
    }

    /// Compiles every `*.schema.json` in a folder and the folders below it.
    ///
    /// The file name is the event type: `shop.order-placed.v1.schema.json` contains the schema of
    /// `shop.order-placed.v1`. Names that begin with a dot are skipped, as are folders that are
    /// symbolic links, so that a mounted Kubernetes ConfigMap is read once.
    ///
    /// # Errors
    /// Returns [`SchemaError::Io`] if a folder or file cannot be read, [`SchemaError::Empty`] if
    /// there is no schema, and the errors of [`Catalogue::from_texts`].
    pub fn from_dir(dir: &Path) -> Result<Self, SchemaError> {
        let mut catalogue = Self {
            schemas: BTreeMap::new(),
        };
        catalogue.add_dir(dir)?;
        if catalogue.schemas.is_empty() {
            return Err(SchemaError::Empty {
                dir: dir.to_owned(),
            });
        }
        Ok(catalogue)
    }

    /// The event types, sorted.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    /// The schema document of an event type. None if the catalogue does not have the type.
    pub fn schema(&self, ty: &str) -> Option<&Value> {
        self.schemas.get(ty).map(|schema| &schema.document)
    }

    /// Validates a payload.
    ///
    /// # Errors
    /// Returns [`ValidationError::UnknownType`], or the first [`Violation`] found.
    pub fn validate(&self, ty: &str, data: &Value) -> Result<(), ValidationError> {
        let schema = self
            .schemas
            .get(ty)
            .ok_or_else(|| ValidationError::UnknownType(ty.to_owned()))?;
        // Nearly all payloads are valid, which is faster to determine than the fault.
        if schema.validator.is_valid(data) {
            return Ok(());
        }
        let validated = schema.validator.validate(data);
        validated.map_err(|error| Violation::new(ty, &error).into())
    }

    /// Validates a payload in its encoded form. The parsed tree is dropped when this returns. Large
    /// trees take turns in the whole process, so this may block while others are parsed.
    ///
    /// # Errors
    /// Returns an outer error if the bytes are not JSON, and an inner one if the payload is
    /// invalid.
    pub(crate) fn check(
        &self,
        ty: &str,
        json: &[u8],
    ) -> serde_json::Result<Result<(), ValidationError>> {
        if !self.schemas.contains_key(ty) {
            return Ok(Err(ValidationError::UnknownType(ty.to_owned())));
        }
        weight::in_turn(json, || {
            let tree: Value = parse(json)?;
            Ok(self.validate(ty, &tree))
        })
    }

    fn add_dir(&mut self, dir: &Path) -> Result<(), SchemaError> {
        let failed = |source| SchemaError::Io {
            path: dir.to_owned(),
            source,
        };
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type().map_err(failed)?.is_dir() {
                self.add_dir(&entry.path())?;
            } else if let Some(ty) = name.strip_suffix(FILE_SUFFIX) {
                let path = entry.path();
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| SchemaError::Io { path, source })?;
                self.add(ty, &text)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, ty: &str, text: &str) -> Result<(), SchemaError> {
        let invalid = |reason: String| SchemaError::Invalid {
            ty: ty.to_owned(),
            reason,
        };
        let Entry::Vacant(place) = self.schemas.entry(ty.to_owned()) else {
            return Err(invalid("there are two documents for it".to_owned()));
        };
        let schema = Schema::compile(text).map_err(invalid)?;
        place.insert(schema);
        Ok(())
    }
}

/// Parses JSON. It is checked as UTF-8 as a whole, which is much faster than string by string. For
/// other bytes the parser reports the fault.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    match std::str::from_utf8(json) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(json),
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.types()).finish()
    }
}

impl Schema {
    fn compile(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        if let Some(dialect) = document.get("$schema")
            && dialect.as_str().map(|uri| uri.trim_end_matches('#')) != Some(DIALECT)
        {
            return Err(format!(
                "$schema is {dialect}, but only {DIALECT} is understood"
            ));
        }
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false)
            .with_pattern_options(PatternOptions::regex())
            .offline()
            .build(&document)
            .map_err(|error| error::unusable(&error))?;
        Ok(Self {
            document,
            validator,
        })
    }
}

#[cfg(test)]
mod tests;
