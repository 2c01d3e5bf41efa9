//! Batch handlers: several events share one transaction, and each has its own outcome.
//!
//! Deliveries of the handler's type wait, each in its own lane, until the previous batch has ended;
//! the deliveries that wait then form the next batch. A batch therefore has at most one event of
//! each key where the consumer keeps keys in order, is never larger than the consumer's
//! concurrency, and adds no delay under low load.
//!
//! Owns the waiting deliveries and the run of a batch. Knows neither lanes nor offsets: for the
//! consumer each event is a delivery like any other.
//!
//! - `settings`, `outcome`: the public types
//! - `queue`: which deliveries form the next batch; `run`: the task of a batch; `claims`: the
//!   inbox's part
//!
//! Order: a batch keeps the order of arrival, and a key has one delivery at a time, so that no
//! event overtakes an earlier one of its key. Cancellation: a delivery's caller may stop waiting at
//! any time (a revoke, a stop, a timeout). The batch runs on for the others and is dropped, with
//! its transaction, only when no caller waits any more.

mod claims;
mod outcome;
mod queue;
mod run;
mod settings;
#[cfg(test)]
mod tests;

pub use outcome::{BatchOutcome, Delivered, IntoBatchOutcome};
pub(super) use run::Batcher;
pub use settings::BatchSettings;

use super::{HandlerError, Outcome};

impl IntoBatchOutcome for () {
    fn into_batch_outcome(self) -> BatchOutcome {
        BatchOutcome::Done
    }
}

impl IntoBatchOutcome for Vec<Outcome> {
    fn into_batch_outcome(self) -> BatchOutcome {
        BatchOutcome::Each(self)
    }
}

impl<T: IntoBatchOutcome, E: Into<HandlerError>> IntoBatchOutcome for Result<T, E> {
    fn into_batch_outcome(self) -> BatchOutcome {
        match self {
            Ok(value) => value.into_batch_outcome(),
            Err(error) => BatchOutcome::Failed(error.into()),
        }
    }
}
