//! Limits and outcome of an execution.

use crate::dead_letters::DeadLetterError;

/// Rate and size limits of a replay.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of records per second. `None`: no limit.
    pub rate: Option<u32>,
    /// Maximum number of dead letters.
    pub records: u64,
}

/// The outcome of an execution.
#[derive(Debug)]
#[non_exhaustive]
pub struct ReplayOutcome {
    /// Number of dead letters that were replayed.
    pub replayed: u64,
    /// Number of dead letters that could not be published, or whose content is lost.
    pub failed: u64,
    /// Number of dead letters that were not tried, because an earlier one of their key failed.
    pub held_back: u64,
    /// Whether it was stopped.
    pub is_stopped: bool,
    /// The error that ended it early.
    pub error: Option<DeadLetterError>,
}
