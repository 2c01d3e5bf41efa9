//! What payloads are validated with.

use super::error::ValidationError;
use super::memory_limit;
use super::parse::parse;
use serde_json::Value;

/// Validates payloads by event type: before they are published, and before a handler receives them.
///
/// With the feature `json-schema` a [`Catalogue`](super::Catalogue) is one. Implement it for rules
/// of another form.
///
/// The methods are called on the task that publishes or handles, once for each event. They must not
/// block.
pub trait PayloadValidator: std::fmt::Debug + Send + Sync + 'static {
    /// Whether there are rules for this event type. Routers accept events of other types unchecked;
    /// publishers and outboxes refuse them with [`ValidationError::UnknownType`].
    fn knows(&self, ty: &str) -> bool;

    /// Validates a payload.
    ///
    /// # Errors
    /// Returns [`ValidationError::UnknownType`] for a type without rules, or the first
    /// [`Violation`](super::Violation) found.
    fn validate(&self, ty: &str, data: &Value) -> Result<(), ValidationError>;
}

/// Validates a payload in its encoded form. The parsed tree is dropped when this returns. Large
/// trees take turns in the whole process, so this may block while others are parsed.
///
/// # Errors
/// Returns an outer error if the bytes are not JSON, and an inner one if the payload is invalid.
pub(crate) fn check(
    validator: &dyn PayloadValidator,
    ty: &str,
    json: &[u8],
) -> serde_json::Result<Result<(), ValidationError>> {
    if !validator.knows(ty) {
        return Ok(Err(ValidationError::UnknownType(ty.to_owned())));
    }
    memory_limit::with_memory_for(json, || {
        let tree: Value = parse(json)?;
        Ok(validator.validate(ty, &tree))
    })
}
