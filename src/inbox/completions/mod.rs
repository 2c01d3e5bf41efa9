//! Read access to a store's completed deliveries, for the audit and for tests.
//!
//! Owns the trait. Knows no claim and no transaction: reading blocks no other user of the store and
//! changes nothing.
//!
//! The audit compares the log of a topic with these completions: a record at or below the committed
//! offset without a completion, a dead letter or a retry entry is a lost event.
//!
//! `completion.rs` holds the trait, `open.rs` opens a store by its address, and `conformance` is
//! the suite that every implementation passes (feature `testing`). Each store implements the trait
//! beside its claims, and opens addresses of its own form.

pub(super) mod completion;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod open;

pub use completion::{Completion, Completions};
pub use open::open;
