//! The result of a delivery: explicit, never inferred from an error's text.

use super::HandlerError;
use crate::failure::DeadReason;

/// How one delivery of a record ended. The response of every handler service.
///
/// Most handlers return `()` or a `Result`, which convert into it ([`IntoOutcome`]). A handler
/// returns it itself to ignore a record:
///
/// ```
/// use evenkeel::event::Record;
/// use evenkeel::handler::{HandlerError, Outcome, Router};
///
/// async fn count(record: Record) -> Result<Outcome, HandlerError> {
///     let Some(value) = record.value() else {
///         return Ok(Outcome::Ignored); // a tombstone
///     };
///     println!("{} bytes", value.len());
///     Ok(Outcome::Done)
/// }
///
/// let router = Router::new().raw(count);
/// ```
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "the record is settled or retried by it"]
pub enum Outcome {
    /// Handled. The router commits the claim of the inbox, with a transactional one also the
    /// effect, and publishes the handler's events. Then the record is settled.
    Done,
    /// Handled before: the inbox suppressed the effect. The record is settled. A service that
    /// recognises duplicates itself may return it too; it is counted as one.
    Duplicate,
    /// Not for this handler. The record is settled, and counted in
    /// [`RunReport::ignored`](crate::consumer::RunReport::ignored). An inbox records it like a
    /// handled one.
    Ignored,
    /// Failed for now. The class of the error and the
    /// [`RetryPolicy`](crate::recovery::RetryPolicy) decide when it is retried. Nothing is
    /// committed or published.
    Retry(HandlerError),
    /// Failed for good. The record is written to the dead-letter topic and settled after the
    /// brokers acknowledged that. Nothing is committed or published.
    Dead(DeadReason),
}

impl Outcome {
    /// Whether the record is settled without a failure.
    pub(super) fn is_success(&self) -> bool {
        matches!(self, Self::Done | Self::Ignored | Self::Duplicate)
    }

    /// The kind of failure, as an attribute of a span; `None` for a success.
    pub(super) fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Done | Self::Duplicate | Self::Ignored => None,
            Self::Retry(error) => Some(error.stage().as_str()),
            Self::Dead(reason) => Some(reason.stage.as_str()),
        }
    }
}

/// The return types of a handler function: `()`, an [`Outcome`], or a `Result` of either, with any
/// error that converts into a [`HandlerError`].
///
/// Called by the router once per attempt, in the worker's task, when the handler's future has
/// completed. It must not block. A panic in it dead-letters the record.
///
/// A service can implement it for a result type of its own:
///
/// ```
/// use evenkeel::handler::{IntoOutcome, Outcome};
///
/// enum Reply { Sent, NotForUs }
///
/// impl IntoOutcome for Reply {
///     fn into_outcome(self) -> Outcome {
///         match self {
///             Self::Sent => Outcome::Done,
///             Self::NotForUs => Outcome::Ignored,
///         }
///     }
/// }
/// # assert!(matches!(Reply::Sent.into_outcome(), Outcome::Done));
/// # assert!(matches!(Reply::NotForUs.into_outcome(), Outcome::Ignored));
/// ```
pub trait IntoOutcome {
    /// Converts the value into an outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<T: IntoOutcome, E: Into<HandlerError>> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => Outcome::Retry(error.into()),
        }
    }
}
