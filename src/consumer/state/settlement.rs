//! How a record was settled.

use crate::handler::Outcome;
use crate::recovery::parked::RetryState;

/// How a record was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Done,
    Duplicate,
    Ignored,
    Dead,
    /// An operator requested the skip.
    Skipped,
    /// The record is in the retry topic.
    Parked,
}

impl Settlement {
    pub(crate) const ALL: [Self; 6] = [
        Self::Done,
        Self::Duplicate,
        Self::Ignored,
        Self::Dead,
        Self::Skipped,
        Self::Parked,
    ];

    /// Maps an outcome to its settlement. Returns the outcome itself if the record needs a retry or
    /// a dead letter.
    pub(crate) fn of(outcome: Outcome) -> Result<Self, Outcome> {
        match outcome {
            Outcome::Done => Ok(Self::Done),
            Outcome::Duplicate => Ok(Self::Duplicate),
            Outcome::Ignored => Ok(Self::Ignored),
            outcome => Err(outcome),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Duplicate => "duplicate",
            Self::Ignored => "ignored",
            Self::Dead => "dead",
            Self::Skipped => "skipped",
            Self::Parked => "parked",
        }
    }
}

/// The result of processing a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The record counts as handled.
    Settled(Settlement),
    /// A parked record failed again and waits again.
    PutBack(RetryState),
    /// The record was released unsettled: its partition was revoked, or the consumer stops.
    Abandoned,
}
