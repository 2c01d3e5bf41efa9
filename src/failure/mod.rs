//! The vocabulary of failures: error classes, stages and reasons of dead letters, backoff, panics.
//!
//! Inbox, outbox, recovery and handler depend on it, and it depends on none of them: it is the
//! lowest floor on which all of them can name a failure. `handler` and `recovery` re-export the
//! public types.
//!
//! - `class`: whether a failure is retried; `backoff`: when
//! - `reason`: at which stage a record failed for good, and why
//! - `panics`: panics of a service's code as reasons; `causes`: the chain of an error

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
