//! How a record was settled.
//!
//! Done, duplicate and ignored come from the handler. Parked, dead and skipped count only after the
//! brokers acknowledged the write of the record to its other topic: these are the guarantees of the
//! commit.
//!
//! | settlement | label | counts as handled for the flood guard | evidence that the inbox is up |
//! |---|---|---|---|
//! | done | `done` | yes | yes |
//! | duplicate | `duplicate` | yes | yes |
//! | ignored | `ignored` | no | no |
//! | dead-lettered | `dead` | no | no |
//! | skipped | `skipped` | no | no |
//! | parked | `parked` | no | no |

use crate::handler::Outcome;
use crate::recovery::parked::RetryState;

/// How a record was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// The handler succeeded.
    Done,
    /// The inbox knew the delivery, and no effect happened.
    Duplicate,
    /// No handler exists for it, or the handler ignored it.
    Ignored,
    /// The record is in the dead-letter topic.
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

    /// The label of the metric.
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
