//! Read access to a store's completed deliveries, for the audit and for tests.
//!
//! Owns the trait. Knows no claim and no transaction: reading blocks no other user of the store and
//! changes nothing.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod open;
mod port;

pub use open::open;
pub use port::{Completion, Completions};
