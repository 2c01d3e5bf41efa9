//! The report of a relay's run.

/// The report of a relay's run, returned by [`Relay::run`](super::Relay::run).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayReport {
    /// Events that the brokers acknowledged.
    pub published: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Keys in this relay's slots that wait because their first event was refused.
    pub held_keys: usize,
    /// Events without an acknowledgement when the stop's deadline passed. They are still in the
    /// outbox.
    pub unacknowledged: usize,
}
