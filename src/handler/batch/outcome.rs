//! The input and the result of a batch handler.

use crate::event::Event;
use crate::handler::{Context, HandlerError, Outcome};
use std::fmt;

/// An event of a batch, with the context of its delivery.
pub struct Delivered<T> {
    /// The event.
    pub event: Event<T>,
    /// The context of this event's delivery. Events published through it are sent when this event
    /// succeeded, with ids derived from this event.
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
    /// The outcome of each event, in the order of the batch.
    ///
    /// The transaction is committed if at least one event succeeded. For a failed event the handler
    /// must therefore have written nothing, or have undone its writes with a savepoint of its own.
    /// If the number of outcomes differs from the number of events, the whole batch fails.
    Each(Vec<Outcome>),
    /// The batch failed as a whole. Everything it wrote is undone, and each of its events is
    /// retried alone, so that the others succeed without the event that causes the failure. A
    /// permanent error therefore counts as transient, unless the batch had one event only.
    Failed(HandlerError),
}

/// The return types of a batch handler: `()`, a `Vec` of [`Outcome`]s, or a `Result` of either.
///
/// Called by the router once per batch, when the handler's future has completed.
pub trait IntoBatchOutcome {
    /// Converts the value into an outcome.
    fn into_batch_outcome(self) -> BatchOutcome;
}
