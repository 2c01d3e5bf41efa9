//! Limits and outcome of an execution.

use crate::dead_letters::DeadLetterError;

/// Rate and size limits of a replay. Default: none.
///
/// ```
/// use evenkeel_ops::dead_letters::replay::Limits;
///
/// let limits = Limits::default().with_rate(100).with_records(1_000);
/// assert_eq!(limits.rate, Some(100));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// Bounds the records per second, over all topics. At the bound the replay waits. 0 counts as
    /// 1. Default: no limit.
    pub rate: Option<u32>,
    /// Bounds the dead letters that are tried, failed ones included. At the bound the replay ends;
    /// the next one continues behind them. Default: [`u64::MAX`].
    pub records: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rate: None,
            records: u64::MAX,
        }
    }
}

impl Limits {
    /// Sets [`rate`](Self::rate).
    #[must_use]
    pub fn with_rate(mut self, rate: impl Into<Option<u32>>) -> Self {
        self.rate = rate.into();
        self
    }

    /// Sets [`records`](Self::records).
    #[must_use]
    pub fn with_records(mut self, records: u64) -> Self {
        self.records = records;
        self
    }
}

/// The outcome of an execution. Check [`error`](Self::error): it is no success if that is set, or
/// if [`failed`](Self::failed) or [`held_back`](Self::held_back) is above 0.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it may contain an error"]
pub struct ReplayOutcome {
    /// Number of dead letters that were replayed.
    pub replayed: u64,
    /// Number of dead letters that could not be published, or whose content is lost.
    pub failed: u64,
    /// Number of dead letters that were not tried, because an earlier one of their key failed.
    pub held_back: u64,
    /// Whether it was stopped. Records whose acknowledgement did not arrive within the cluster's
    /// timeout count as neither replayed nor failed; the next replay finds them.
    pub is_stopped: bool,
    /// The error that ended it early. What was replayed before is recorded.
    pub error: Option<DeadLetterError>,
}
