//! The result of a delivery: explicit, never inferred from an error's text.

use super::HandlerError;
use crate::failure::DeadReason;

/// How one delivery of a record ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled. The record is settled.
    Done,
    /// Handled before: the inbox suppressed the effect. The record is settled.
    Duplicate,
    /// Not for this handler. The record is settled.
    Ignored,
    /// Failed for now. The class of the error and the retry policy decide when it is retried.
    Retry(HandlerError),
    /// Failed for good. The record is written to the dead-letter topic and settled after the
    /// brokers acknowledged that.
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

/// The return types of a handler function: `()`, an [`Outcome`], or a `Result` of either.
///
/// Called by the router once per delivery, when the handler's future has completed.
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
