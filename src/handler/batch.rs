//! Batch handlers: a run of events with one transaction, and an outcome for each.
//!
//! Deliveries of the handler's type wait, each in its own lane, until the batch before has ended; what waits then is the next
//! batch. So a batch has one event of each key at most where the consumer keeps keys in order, is never larger than the
//! consumer's concurrency, and adds no wait when there is little to do.
//!
//! Owns what waits and how a batch runs. Knows neither lanes nor offsets: to a consumer each event is a delivery like others.

mod claims;
mod queue;
mod run;
#[cfg(test)]
mod tests;

pub(super) use run::Batcher;

use super::{Context, HandlerError, Outcome};
use crate::event::Event;
use crate::inbox::CLAIMS_MAX;
use crate::kafka::ConfigError;
use std::fmt;
use std::time::Duration;

/// How a batch handler's events are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSettings {
    /// Events of a batch at most, up to 2,000: stores claim them in one statement. Smaller batches are the rule: one holds what
    /// is ready, and no more than the consumer's concurrency. Default: 500.
    pub records_max: usize,
    /// How long the first event of a batch waits for others. Default: not at all; events that come while a batch runs make
    /// the next one anyway. Keep it well below the handler's timeout, which runs meanwhile.
    pub wait_max: Duration,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            records_max: 500,
            wait_max: Duration::ZERO,
        }
    }
}

impl BatchSettings {
    /// Checks the values.
    ///
    /// # Errors
    /// When a batch could hold nothing, or more than stores take.
    pub fn validate(&self) -> Result<(), ConfigError> {
        match self.records_max {
            0 => Err(ConfigError::new(
                "records_max",
                "is 0: a batch holds at least one event",
            )),
            1..=RECORDS_MAX => Ok(()),
            more => Err(ConfigError::new(
                "records_max",
                format!("is {more}: a batch holds {RECORDS_MAX} events at most"),
            )),
        }
    }
}

const RECORDS_MAX: usize = CLAIMS_MAX as usize;

/// An event of a batch, and what is known of its delivery.
pub struct Delivered<T> {
    /// The event.
    pub event: Event<T>,
    /// Its own context: what is published through it leaves when this event succeeded, with ids derived from this event.
    pub context: Context,
}

impl<T: fmt::Debug> fmt::Debug for Delivered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivered")
            .field("event", &self.event)
            .finish_non_exhaustive()
    }
}

/// How a batch ended.
#[derive(Debug)]
pub enum BatchOutcome {
    /// Every event succeeded.
    Done,
    /// The outcome of each event, in the batch's order.
    ///
    /// What the handler wrote is committed if one succeeded, so for an event that fails it has written nothing, or has undone
    /// that by a savepoint of its own. Another number of outcomes than of events is a failure of the whole batch.
    Each(Vec<Outcome>),
    /// The batch failed as a whole: everything it wrote is undone, and each of its events is tried again alone, so that the
    /// others go on without the one that is to blame. For that a permanent error counts as a transient one, unless the batch
    /// was of one event.
    Failed(HandlerError),
}

/// What a batch handler may return: `()`, a `Vec` of [`Outcome`]s, or a `Result` of either.
pub trait IntoBatchOutcome {
    /// The outcome it stands for.
    fn into_batch_outcome(self) -> BatchOutcome;
}

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
