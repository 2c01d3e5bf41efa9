//! What a handler says about a record: always explicit, never inferred from an error's text.

use super::HandlerError;
use std::fmt;

/// How one delivery of a record ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Handled; the record is settled.
    Done,
    /// Handled before; the inbox suppressed the effect. The record is settled.
    Duplicate,
    /// Not for this handler; the record is settled.
    Ignored,
    /// Failed for now: tried again as the error's class and the retry policy say.
    Retry(HandlerError),
    /// Failed for good: goes to the dead-letter topic, then the record is settled.
    Dead(DeadReason),
}

impl Outcome {
    /// What kind of failure it is, for a span; none for a success.
    pub(super) fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Done | Self::Duplicate | Self::Ignored => None,
            Self::Retry(error) => Some(error.stage().as_str()),
            Self::Dead(reason) => Some(reason.stage.as_str()),
        }
    }
}

/// Where a record failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// The record could not be decoded.
    Decode,
    /// Its payload does not follow its schema.
    Schema,
    /// The handler refused it, or failed too often.
    Handler,
    /// The handler took too long.
    Timeout,
    /// The handler panicked.
    Panic,
    /// The inbox knows its id from another event, and [`ReusedIds::DeadLetter`](super::ReusedIds::DeadLetter) was asked for.
    Inbox,
    /// It was not handled: an operator had it skipped.
    Skipped,
}

impl Stage {
    /// The stage's name in headers, metrics and listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Schema => "schema",
            Self::Handler => "handler",
            Self::Timeout => "timeout",
            Self::Panic => "panic",
            Self::Inbox => "inbox",
            Self::Skipped => "skipped",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a record goes to the dead-letter topic.
#[derive(Debug)]
pub struct DeadReason {
    /// Where it failed.
    pub stage: Stage,
    /// What happened, without any part of the payload; capped when it is written.
    pub message: String,
}

impl DeadReason {
    /// A stage and what happened there.
    pub fn new(stage: Stage, message: impl Into<String>) -> Self {
        Self {
            stage,
            message: message.into(),
        }
    }
}

/// What a handler function may return: `()`, an [`Outcome`], or a `Result` of either.
pub trait IntoOutcome {
    /// The outcome it stands for.
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
