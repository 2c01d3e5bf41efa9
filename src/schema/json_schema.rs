//! Compiled JSON Schema documents.

use super::error::Violation;
use super::json_tree::{JsonTree, TreeJson};
use jsonschema::error::ValidationErrorKind;
use jsonschema::json::Json;
use jsonschema::{Draft, PatternOptions, ReferencingError, Validator};
use serde_json::Value;

/// A compiled document, for each form of a payload.
pub(super) struct CompiledSchema {
    value: Validator,
    tree: Validator<TreeJson>,
}

impl CompiledSchema {
    /// Compiles a document, or returns its fault.
    pub(super) fn new(document: &Value) -> Result<Self, String> {
        Ok(Self {
            value: compile(document)?,
            tree: compile(document)?,
        })
    }

    /// Whether a payload follows the document.
    pub(super) fn is_valid(&self, data: &JsonTree<'_>) -> bool {
        self.tree.is_valid(data)
    }

    /// Validates a payload of the type `ty`.
    pub(super) fn validate(&self, ty: &str, data: &Value) -> Result<(), Violation> {
        // Nearly all payloads are valid, which is faster to determine than the fault.
        if self.value.is_valid(data) {
            return Ok(());
        }
        let validated = self.value.validate(data);
        validated.map_err(|error| violation(ty, &error))
    }

    /// The violations of a payload of the type `ty`, up to `max`.
    pub(super) fn violations(&self, ty: &str, data: &Value, max: usize) -> Vec<Violation> {
        if max <= 1 {
            let first = self.validate(ty, data).err();
            return first.into_iter().take(max).collect();
        }
        if self.value.is_valid(data) {
            return Vec::new();
        }
        let errors = self.value.iter_errors(data).take(max);
        errors.map(|error| violation(ty, &error)).collect()
    }
}

fn compile<F: Json>(document: &Value) -> Result<Validator<F>, String> {
    jsonschema::options_for::<F>()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(document)
        .map_err(|error| schema_fault(&error))
}

/// Takes pointer and keyword from the validator's error, whose own message quotes the payload.
fn violation(ty: &str, error: &jsonschema::ValidationError<'_>) -> Violation {
    let mut pointer = error.instance_path().as_str().to_owned();
    if let ValidationErrorKind::Required { property } = error.kind() {
        let name = property.as_str().unwrap_or_default();
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    Violation {
        ty: ty.to_owned(),
        pointer,
        keyword: error.kind().keyword().to_owned(),
    }
}

/// The fault of a document. It may be shown, as it contains no payload.
fn schema_fault(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) => format!(
            "it refers to {uri}, and no other document is fetched: put what is needed under $defs"
        ),
        _ => format!("{error} (at {:?})", error.instance_path().as_str()),
    }
}
