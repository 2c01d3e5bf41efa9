//! What happens to a record that fails: in-place retries and dead letters.

pub(crate) mod dead_letter;
mod policy;

pub use policy::{Backoff, Decision, RetryPolicy};
