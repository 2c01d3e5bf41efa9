//! The end of a run: its report, or its error.

use crate::kafka::{ConfigError, KafkaError};

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stopped {
    /// A stop was requested.
    Requested,
    /// The bound of the run was reached.
    BoundReached,
}

/// The counts of a run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RunReport {
    /// Why the run ended.
    pub stopped: Stopped,
    /// Records received.
    pub received: u64,
    /// Records settled, by any outcome.
    pub settled: u64,
    /// Settled records that the inbox recognised as duplicates.
    pub duplicates: u64,
    /// Settled records that were ignored: no handler exists for their event type, or the handler
    /// returned [`Outcome::Ignored`](crate::handler::Outcome::Ignored).
    pub ignored: u64,
    /// Settled records that were dead-lettered.
    pub dead_letters: u64,
    /// Settled records that were parked in the retry topic. They count again when they are settled
    /// there.
    pub parked: u64,
    /// Whether every record that was started is settled and committed. False if the drain reached
    /// its deadline, a commit was refused, or a failed record still waited for its next attempt or
    /// its dead letter. Unsettled records are redelivered.
    pub clean: bool,
}

impl RunReport {
    /// The report of a run that was stopped before it began.
    pub(crate) fn of_nothing() -> Self {
        Self {
            stopped: Stopped::Requested,
            received: 0,
            settled: 0,
            duplicates: 0,
            ignored: 0,
            dead_letters: 0,
            parked: 0,
            clean: true,
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster cannot be reached or refused a request, or a topic is missing.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A partition cannot be read until an operator mends it, so that a bounded run would never
    /// reach its end.
    #[error("the run cannot reach its end: {topic}/{partition} cannot be read: {why}")]
    Unreadable {
        /// The topic.
        topic: String,
        /// The number of the partition.
        partition: i32,
        /// The reason that the client reports.
        why: String,
    },
    /// Another member of the group has the same instance id.
    /// [`Consumer::run`](super::Consumer::run) retries instead of returning it.
    #[error("another member of the group has the same instance id")]
    InstanceInUse,
    /// The client can no longer be used. The process should end and be started again.
    #[error("the client failed for good: {0}")]
    Fatal(String),
}
