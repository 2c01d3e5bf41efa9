//! How a consumer behaves: documented fields, defaults, one `validate`.

use crate::kafka::ConfigError;
use crate::recovery::RetryPolicy;
use std::time::Duration;

/// What keeps its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// Records of one key, in each topic. The default.
    #[default]
    Key,
    /// All records of one partition.
    Partition,
    /// Nothing.
    Unordered,
}

/// What orders records without a key under [`Ordering::Key`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keyless {
    /// Nothing: each is handled on its own.
    #[default]
    Unordered,
    /// Their partition.
    Partition,
}

/// How partitions are assigned to the group's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Assignment {
    /// Incremental: only partitions that move are revoked. The default.
    #[default]
    CooperativeSticky,
    /// Ranges per topic; co-partitioned topics meet in one member.
    Range,
    /// Round robin.
    RoundRobin,
    /// The brokers assign (KIP-848, `group.protocol=consumer`, brokers from 4.0).
    Broker,
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bound {
    /// Never.
    #[default]
    Endless,
    /// When everything that was there at the assignment is settled.
    UntilEnd,
    /// When that many records are settled.
    Records(u64),
    /// When no record came for that long and all are settled.
    Idle(Duration),
}

/// How a consumer behaves.
#[derive(Debug, Clone)]
pub struct ConsumerSettings {
    /// Consumer group.
    pub group: String,
    /// Topics.
    pub topics: Vec<String>,
    /// What keeps its order.
    pub ordering: Ordering,
    /// What orders records without a key.
    pub keyless: Keyless,
    /// Handlers running at the same time, over all partitions.
    pub concurrency: usize,
    /// Tasks that own the lanes; none picks twice the processors, at most `concurrency`.
    pub workers: Option<usize>,
    /// Records admitted and not settled, at most; none is `max(4 * concurrency, 4096)`.
    pub in_flight_records_max: Option<usize>,
    /// Bytes held for admitted records, at most. One record larger than that is still taken, alone.
    pub in_flight_bytes_max: usize,
    /// How often offsets are committed.
    pub commit_interval: Duration,
    /// How long a stop waits for running handlers.
    pub drain_timeout: Duration,
    /// How long a revoke waits for running handlers; none is the smaller of 10 s and a third of `max.poll.interval.ms`.
    pub revoke_timeout: Option<Duration>,
    /// How long the start waits for the brokers.
    pub startup_timeout: Duration,
    /// How long one attempt may take before it counts as failed; none never cuts off.
    pub handler_timeout: Option<Duration>,
    /// A record that is unsettled for longer is reported by the watchdog.
    pub stuck_after: Duration,
    /// How partitions are assigned.
    pub assignment: Assignment,
    /// Static membership: a name that stays the same across restarts of this instance.
    pub instance_id: Option<String>,
    /// When the run ends by itself.
    pub bound: Bound,
    /// How failures are retried.
    pub retry: RetryPolicy,
}

impl ConsumerSettings {
    /// Defaults for a group and its topics.
    pub fn new<T: Into<String>>(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            ordering: Ordering::Key,
            keyless: Keyless::Unordered,
            concurrency: 64,
            workers: None,
            in_flight_records_max: None,
            in_flight_bytes_max: 32 << 20,
            commit_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(25),
            revoke_timeout: None,
            startup_timeout: Duration::from_secs(10),
            handler_timeout: None,
            stuck_after: Duration::from_secs(60),
            assignment: Assignment::CooperativeSticky,
            instance_id: None,
            bound: Bound::Endless,
            retry: RetryPolicy::default(),
        }
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// Names the setting and what to do about it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        todo!()
    }
}
