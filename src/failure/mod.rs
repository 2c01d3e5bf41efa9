//! The vocabulary of failures: error classes, stages and reasons of dead letters, backoff, panics.
//!
//! Inbox, outbox, recovery and handler depend on it. `handler` and `recovery` re-export the public
//! types.

mod backoff;
mod causes;
mod class;
pub(crate) mod panics;
mod reason;

pub use backoff::Backoff;
#[cfg(test)]
pub(crate) use backoff::DELAY_MIN;
pub(crate) use causes::{CAUSES_MAX, causes};
pub use class::Class;
pub use reason::{DeadReason, Stage};
