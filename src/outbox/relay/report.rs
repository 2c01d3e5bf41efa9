//! The report of a relay's run.

/// The report of a relay's run, returned by [`Relay::run`](super::Relay::run). A run has ended
/// cleanly if `unacknowledged` is 0. Held keys are no failure of the run: their events wait in the
/// outbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayReport {
    /// Events that the brokers acknowledged.
    pub published: u64,
    /// Attempts that failed. Each is retried, so one event may count several times.
    pub failed: u64,
    /// Keys in this relay's slots that wait because their first event was refused.
    pub held_keys: usize,
    /// Events without an acknowledgement when the stop's deadline passed. They are still in the
    /// outbox.
    pub unacknowledged: usize,
    /// Another relay was registered at the stop: it publishes the rest.
    pub handed_over: bool,
}
