//! The catalogue of event types: JSON Schema documents, and the validation of payloads.
//!
//! - [`Catalogue`]: the documents by event type, without remote references
//! - [`PayloadValidator`]: what publishers, outboxes and routers validate payloads with. With the
//!   feature `json-schema` a [`Catalogue`] is one: each document is compiled once, when the
//!   catalogue is created. Without the feature it only lists types and documents, and nothing
//!   accepts it as a validator.
//! - `JsonTree` (feature `json-schema`): a payload that borrows its texts, for
//!   `Catalogue::is_valid`
//!
//! Knows neither envelope nor client, and never fetches a document.

mod catalogue;
mod error;
#[cfg(feature = "json-schema")]
mod json_schema;
#[cfg(feature = "json-schema")]
mod json_tree;
mod memory_limit;
mod parse;
mod validator;

pub use catalogue::Catalogue;
pub use error::{SchemaError, ValidationError, Violation};
#[cfg(feature = "json-schema")]
pub use json_tree::JsonTree;
pub(crate) use parse::parse;
pub use validator::PayloadValidator;
pub(crate) use validator::check;

#[cfg(test)]
mod tests;
