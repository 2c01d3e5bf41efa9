//! The end of a run: its report, or its error.
//!
//! A report describes a run that ended as intended, even if its drain was cut short
//! ([`RunReport::clean`]). An error describes one that could not start or continue. In both cases
//! no record is lost: everything unsettled is redelivered.

use crate::kafka::{ConfigError, KafkaError};

/// Why a run ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stopped {
    /// A stop was requested: the token that was passed to [`Consumer::run`](super::Consumer::run)
    /// is cancelled.
    Requested,
    /// The bound of the run ([`StopWhen`](super::StopWhen)) was reached.
    BoundReached,
}

/// The counts of a run.
///
/// The counts are of this run and this member. `received` minus `settled` were released unsettled,
/// by a rebalance or at the end, and are redelivered. A record that is parked counts as settled,
/// and counts again when its retry is settled.
///
/// ```no_run
/// use evenkeel::consumer::{Consumer, ConsumerSettings, StopWhen, Stopped};
/// # use evenkeel::event::Record;
/// use evenkeel::handler::Router;
/// use evenkeel::kafka::KafkaConfig;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let router = Router::new().raw(async |record: Record| println!("{record:?}"));
/// let settings =
///     ConsumerSettings::new("backfill", ["shop.orders"]).with_stop_when(StopWhen::UntilEnd);
/// let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
/// let report = consumer.run(CancellationToken::new()).await?;
/// let is_complete = report.stopped == Stopped::BoundReached && report.clean;
/// if !is_complete || report.dead_letters > 0 {
///     return Err(format!("incomplete: {report:?}").into());
/// }
/// # Ok(())
/// # }
/// ```
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
///
/// Errors of single records and of lost connections are not among these: they are retried while the
/// run lasts, and the health reports them. After an error the consumer is closed; records that were
/// not settled are redelivered to the next member.
///
/// | variant | retry? | next step |
/// |---|---|---|
/// | [`Config`](Self::Config) | no | correct the setting |
/// | [`Kafka`](Self::Kafka) | depends on its kind | see [`KafkaError`] |
/// | [`Unreadable`](Self::Unreadable) | after the repair | repair or skip, then run again |
/// | [`InstanceInUse`](Self::InstanceInUse) | never returned | |
/// | [`Fatal`](Self::Fatal) | in a new process | restart the process |
/// | [`Thread`](Self::Thread) | yes | raise the limits of the process |
///
/// # Examples
/// An endless service restarts by its supervisor after a passing error, and stays down after a
/// lasting one:
///
/// ```no_run
/// use evenkeel::consumer::{Consumer, ConsumerError, ConsumerSettings};
/// # use evenkeel::event::Record;
/// use evenkeel::handler::Router;
/// use evenkeel::kafka::KafkaConfig;
/// use std::process::ExitCode;
/// use tokio_util::sync::CancellationToken;
///
/// # async fn example() -> Result<ExitCode, Box<dyn std::error::Error>> {
/// # let router = Router::new().raw(async |record: Record| println!("{record:?}"));
/// let settings = ConsumerSettings::new("payments", ["shop.orders"]);
/// let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
/// Ok(match consumer.run(CancellationToken::new()).await {
///     Ok(report) if report.clean => ExitCode::SUCCESS,
///     Ok(_) => ExitCode::from(75),
///     Err(error @ ConsumerError::Config(_)) => {
///         eprintln!("{error}");
///         ExitCode::from(78)
///     }
///     Err(error) => {
///         eprintln!("{error}");
///         ExitCode::from(75)
///     }
/// })
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// A setting cannot be used. It lasts until the setting is changed. The error names the setting
    /// and the remedy.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster cannot be reached at the start, refused a request, or a topic is missing or
    /// unsafe. The error names the request and the remedy. A supervisor may simply restart the
    /// service: errors of the connection pass by themselves.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// A partition cannot be read until an operator acts, so that a bounded run would never reach
    /// its end: its committed offset is out of range and no reset is allowed, a permission is
    /// missing, or its retry partition cannot be read. An endless run continues with its other
    /// partitions instead, and is not ready. Records that were settled before are committed.
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
    /// [`Consumer::run`](super::Consumer::run) waits and retries instead of returning it.
    #[error("another member of the group has the same instance id")]
    InstanceInUse,
    /// The client, or a part of the consumer that cannot be replaced, can no longer be used: a
    /// fatal error of librdkafka (such as a fenced static member), a retry topic that was deleted
    /// and created again, a publisher of a handler that failed for good, or a panic in evenkeel.
    /// End the process and start it again.
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
