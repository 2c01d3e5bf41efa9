//! The documents by event type, and where they come from.

use super::error::SchemaError;
#[cfg(feature = "json-schema")]
use super::error::{ValidationError, Violation};
#[cfg(feature = "json-schema")]
use super::json_schema::CompiledSchema;
#[cfg(feature = "json-schema")]
use super::json_tree::JsonTree;
#[cfg(feature = "json-schema")]
use super::validator::PayloadValidator;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

/// The suffix of a schema's file name, after the event type.
const FILE_SUFFIX: &str = ".schema.json";

/// The only dialect that a document may name in `$schema`.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// JSON Schema documents by event type. Share it behind an `Arc`.
///
/// With the feature `json-schema` each document is compiled when the catalogue is created, and the
/// catalogue validates payloads: it is a [`PayloadValidator`](super::PayloadValidator). Without the
/// feature it lists the types and their documents, and cannot validate.
///
/// Documents are JSON Schema draft 2020-12. `format` is validated, and an unknown format is
/// refused, so that a misspelt one does not accept everything. Patterns run in linear time, so that
/// no payload can stall a consumer. Look-around and back-references, which cannot, are refused.
///
/// # Examples
#[cfg_attr(feature = "json-schema", doc = "```")]
#[cfg_attr(not(feature = "json-schema"), doc = "```ignore")]
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

/// A document, and its compiled form.
struct Schema {
    document: Value,
    #[cfg(feature = "json-schema")]
    compiled: CompiledSchema,
}

impl Catalogue {
    /// Reads pairs of event type and schema as JSON text.
    ///
    /// # Errors
    /// Returns [`SchemaError::Invalid`] for the first document that is not JSON, names another
    /// dialect than draft 2020-12, or is the second of its event type. With the feature
    /// `json-schema` also for one that is not a valid schema of draft 2020-12, or that refers to
    /// another document. Without the feature such a document is listed like any other.
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

    /// Reads every `*.schema.json` in a folder and the folders below it.
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
    /// Returns [`ValidationError::UnknownType`], or the first [`Violation`](super::Violation) found.
    #[cfg(feature = "json-schema")]
    pub fn validate(&self, ty: &str, data: &Value) -> Result<(), ValidationError> {
        Ok(self.compiled(ty)?.validate(ty, data)?)
    }

    /// Validates a payload, and returns its violations, up to `max`. None if it is valid.
    ///
    /// With a `max` above 1 all violations are found before the rest is dropped. Each takes some
    /// hundred bytes, and a payload may have one for every two of its bytes: bound the size of
    /// payloads for which you ask for more than the first.
    ///
    /// # Errors
    /// Returns [`ValidationError::UnknownType`] for a type that the catalogue does not have.
    ///
    /// # Examples
    /// ```
    /// use evenkeel::schema::Catalogue;
    /// use serde_json::json;
    ///
    /// let schema = r#"{
    ///     "required": ["depot"],
    ///     "properties": {"pieces": {"type": "integer", "minimum": 1}}
    /// }"#;
    /// let catalogue = Catalogue::from_texts([("depot.counted.v1", schema)])?;
    /// let violations = catalogue.violations("depot.counted.v1", &json!({"pieces": 0}), 16)?;
    /// let mut pointers: Vec<_> = violations.iter().map(|found| found.pointer.as_str()).collect();
    /// pointers.sort_unstable();
    /// assert_eq!(pointers, ["/depot", "/pieces"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "json-schema")]
    pub fn violations(
        &self,
        ty: &str,
        data: &Value,
        max: usize,
    ) -> Result<Vec<Violation>, ValidationError> {
        Ok(self.compiled(ty)?.violations(ty, data, max))
    }

    /// Whether a payload is valid. It says what [`violations`](Self::violations) does, which names
    /// the faults of one that is not, and needs no copy of the payload's texts.
    ///
    /// # Errors
    /// Returns [`ValidationError::UnknownType`] for a type that the catalogue does not have.
    #[cfg(feature = "json-schema")]
    pub fn is_valid(&self, ty: &str, data: &JsonTree<'_>) -> Result<bool, ValidationError> {
        Ok(self.compiled(ty)?.is_valid(data))
    }

    #[cfg(feature = "json-schema")]
    fn compiled(&self, ty: &str) -> Result<&CompiledSchema, ValidationError> {
        let schema = self.schemas.get(ty);
        let schema = schema.ok_or_else(|| ValidationError::UnknownType(ty.to_owned()))?;
        Ok(&schema.compiled)
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
        let schema = Schema::read(text).map_err(invalid)?;
        place.insert(schema);
        Ok(())
    }
}

#[cfg(feature = "json-schema")]
impl PayloadValidator for Catalogue {
    fn knows(&self, ty: &str) -> bool {
        self.schemas.contains_key(ty)
    }

    fn validate(&self, ty: &str, data: &Value) -> Result<(), ValidationError> {
        self.validate(ty, data)
    }
}

impl std::fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.types()).finish()
    }
}

impl Schema {
    fn read(text: &str) -> Result<Self, String> {
        let document: Value =
            serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        if let Some(dialect) = document.get("$schema")
            && dialect.as_str().map(|uri| uri.trim_end_matches('#')) != Some(DIALECT)
        {
            return Err(format!(
                "$schema is {dialect}, but only {DIALECT} is understood"
            ));
        }
        Ok(Self {
            #[cfg(feature = "json-schema")]
            compiled: CompiledSchema::new(&document)?,
            document,
        })
    }
}
