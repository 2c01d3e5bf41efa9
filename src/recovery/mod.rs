//! What happens to a record that fails: in-place retries and dead letters; and to all records while something that their
//! handlers depend on is down.

mod breaker;
pub(crate) mod dead_letter;
mod policy;
mod window;

pub use breaker::BreakerPolicy;
pub(crate) use breaker::{Breaker, Change};
pub(crate) use window::Window;

pub use policy::{Backoff, Decision, RetryPolicy};
