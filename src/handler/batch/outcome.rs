//! The input and the result of a batch handler.

use crate::event::Event;
use crate::handler::{Context, HandlerError, Outcome};
use std::fmt;

/// An event of a batch, with the context of its delivery.
///
/// ```no_run
/// use evenkeel::event::EventType;
/// use evenkeel::handler::{Delivered, HandlerError, Outcome, Router};
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Paid { cents: i64 }
/// # impl EventType for Paid {
/// #     const TYPE: &'static str = "example.paid.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// async fn check(paid: Vec<Delivered<Paid>>) -> Vec<Outcome> {
///     let outcome = |paid: &Delivered<Paid>| match paid.event.data.cents {
///         0.. => Outcome::Done,
///         _ => Outcome::Retry(HandlerError::permanent("the amount is negative")),
///     };
///     paid.iter().map(outcome).collect()
/// }
///
/// let router = Router::new().on_batch(check);
/// ```
#[non_exhaustive]
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

/// How a batch ended. Handlers rarely name it: they return a value that converts into it
/// ([`IntoBatchOutcome`]).
#[derive(Debug)]
#[non_exhaustive]
#[must_use]
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
/// Called once per batch, in the batch's own task, when the handler's future has completed. It must
/// not block. A panic in it fails the batch like a panic of the handler.
///
/// A service can implement it for a result type of its own:
///
/// ```
/// use evenkeel::handler::{BatchOutcome, HandlerError, IntoBatchOutcome};
///
/// /// The rows that were written, of how many events.
/// struct Written { rows: u64, events: u64 }
///
/// impl IntoBatchOutcome for Written {
///     fn into_batch_outcome(self) -> BatchOutcome {
///         match self.rows == self.events {
///             true => BatchOutcome::Done,
///             false => BatchOutcome::Failed(HandlerError::transient("some rows are missing")),
///         }
///     }
/// }
/// # let _ = Written { rows: 1, events: 1 }.into_batch_outcome();
/// ```
pub trait IntoBatchOutcome {
    /// Converts the value into an outcome.
    fn into_batch_outcome(self) -> BatchOutcome;
}
