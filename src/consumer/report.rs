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
#[non_exhaustive]
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
    /// A clean report without records, to be completed field by field: for tests of code that acts
    /// on reports.
    ///
    /// ```
    /// use evenkeel::consumer::{RunReport, Stopped};
    ///
    /// let mut report = RunReport::new(Stopped::BoundReached);
    /// report.settled = 7;
    /// assert!(report.clean);
    /// ```
    pub fn new(stopped: Stopped) -> Self {
        Self {
            stopped,
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
    #[error("the client cannot continue: {0}; restart the process")]
    Fatal(String),
    /// A thread of the consumer cannot be started. The operating system refuses it, for example at
    /// a limit of threads or of memory. No record was handled. A later run may succeed.
    #[error("the thread {name} cannot be started; check the limits of threads and memory")]
    Thread {
        /// The name of the thread.
        name: &'static str,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
}
