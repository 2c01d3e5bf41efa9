//! What holds between the shop's types, schemas, examples and declarations.
//!
//! - `events`: the Rust types, as the tests go through them
//! - `examples`: one test per example file
//! - `agreement`: every type has its document, its examples and its place on a declared topic, and nothing is left over

mod agreement;
mod events;
mod examples;
