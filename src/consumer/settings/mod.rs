//! The settings of a consumer: fields with their defaults.
//!
//! - `choices`: the enums of single settings
//! - `builders`: the `with_*` methods
//! - `validation`: the checks
//! - `topic_names`: names that Kafka does not tell apart
//!
//! [`ConsumerSettings::validate`] rejects contradictions.
//! [`ConsumerSettings::with_bounded_durations`] then cuts durations to values that can be added, so
//! that no later sum is checked: both run once, in [`Consumer::new`](super::Consumer::new).

mod builders;
mod choices;
pub(crate) mod topic_names;
mod validation;

pub use choices::{
    AfterDeadLetter, Assignment, KeylessOrdering, RecordHeaders, RecordOrdering, StopWhen,
};

use crate::recovery::{BreakerPolicy, DeadLetterTopic, FloodGuardPolicy, RetryPolicy};
use std::time::Duration;

/// The settings of a consumer. [`ConsumerSettings::new`] sets every default; change the fields that
/// differ.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`ordering`](Self::ordering), [`keyless_ordering`](Self::keyless_ordering) | by key, none | which records wait for each other |
/// | [`concurrency`](Self::concurrency) | 64 | handlers at a time |
/// | [`workers`](Self::workers) | 2 × processors | tasks that drive handlers |
/// | [`in_flight_records_max`](Self::in_flight_records_max) | max(4 × concurrency, 4096) | records received and not settled |
/// | [`in_flight_bytes_max`](Self::in_flight_bytes_max) | 32 MiB | bytes of those records |
/// | [`commit_interval`](Self::commit_interval) | 1 s | how much a killed member repeats |
/// | [`drain_timeout`](Self::drain_timeout) | 25 s | how long a stop takes |
/// | [`revoke_timeout`](Self::revoke_timeout) | 10 s | how long a rebalance waits for handlers |
/// | [`startup_timeout`](Self::startup_timeout) | 10 s | how long the start waits for the brokers |
/// | [`handler_timeout`](Self::handler_timeout) | none | how long one attempt runs |
/// | [`stuck_handler_after`](Self::stuck_handler_after) | 60 s | when a running handler is reported |
/// | [`retry`](Self::retry) | see [`RetryPolicy`] | attempts in place and in the retry topic |
/// | [`breaker`](Self::breaker) | see [`BreakerPolicy`] | when an outage pauses all handlers |
/// | [`flood_guard`](Self::flood_guard) | see [`FloodGuardPolicy`] | dead letters before the member stops writing them |
///
/// ```
/// use evenkeel::consumer::ConsumerSettings;
/// use std::time::Duration;
///
/// let settings = ConsumerSettings::new("payments", ["shop.orders"])
///     .with_concurrency(16)
///     .with_handler_timeout(Duration::from_secs(30));
/// settings.validate()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
///
/// There is no `Default`: a group and its topics have none. [`Consumer::new`](super::Consumer::new)
/// validates the settings. [`Duration::MAX`] means for ever.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use = "settings do nothing until a consumer is created with them"]
pub struct ConsumerSettings {
    /// The consumer group. Its own topics are named after it: `retry.<group>.<topic>`,
    /// `dlq.<group>.<topic>` and `control.<group>`. All of these must be valid topic names of at
    /// most 249 bytes. Kafka treats dots and underscores in names as equal: a group whose topics
    /// collide with existing ones does not start.
    pub group: String,
    /// The topics to read. At least one; none of the group's own topics. All members of a group
    /// need the same topics. A missing topic fails the start, and makes a running member not ready.
    pub topics: Vec<String>,
    /// Which records are handled one after the other. Default: those of one key. Retries and the
    /// retry topic keep this order: see [`RecordOrdering`].
    pub ordering: RecordOrdering,
    /// How records without a key are ordered under [`RecordOrdering::Key`]. Default: not at all. It
    /// has no effect under the other orderings.
    pub keyless_ordering: KeylessOrdering,
    /// Whether records are read with their headers. Default: yes. Event handlers need them: the
    /// type of an event in CloudEvents' binary mode is a header.
    pub headers: RecordHeaders,
    /// Bounds the handlers that run at the same time, over all partitions and workers. Default 64,
    /// at least 1. At the bound, records wait in their lanes; when the in-flight limits are reached
    /// too, the consumer takes no more records from Kafka. A handler that waits between two
    /// attempts, for a dependency or for its dead letter does not count. Size the connection pools
    /// of handlers by it.
    pub concurrency: usize,
    /// Bounds the tasks that own the lanes and drive the handlers. Default: twice the processors,
    /// and never more than [`concurrency`](Self::concurrency). All records of a key meet in one
    /// worker, and handlers run inside of its task: one that computes or blocks without yielding
    /// delays all keys of its worker. Move such work into `spawn_blocking`.
    pub workers: Option<usize>,
    /// Bounds the records that are received and not settled. Default `max(4 × concurrency, 4096)`.
    /// At the bound the consumer takes no more records; it wakes when half of the bound is free. At
    /// most half of it, and at most 1,024, are parked records that became due. If it stays used up
    /// for 5 s by records that wait for their next attempt, or for
    /// [`stuck_handler_after`](Self::stuck_handler_after) by others, the member is not ready. It
    /// cannot be below [`concurrency`](Self::concurrency).
    pub in_flight_records_max: Option<usize>,
    /// Bounds the bytes of the records in flight: keys, values and headers. Default 32 MiB. At the
    /// bound the consumer takes no more records, and workers copy the remaining records out of
    /// large buffers. A single record larger than the bound is still taken, alone. The client's own
    /// queue (`queued.max.messages.kbytes`, 6 MiB by default) comes on top.
    pub in_flight_bytes_max: usize,
    /// The time between two commits of settled offsets. Default 1 s; 0 is refused. A killed member
    /// repeats at most what was settled since the last commit; an inbox recognises the repetition.
    /// A revoke, a pause and the stop commit as well. The gauges of lag and of records in flight
    /// are updated at the same interval, and stuck handlers are looked for: a long interval delays
    /// both.
    pub commit_interval: Duration,
    /// Bounds a stop: running handlers, the last commit and leaving the group, all together.
    /// Default 25 s, which fits into the 30 s of a Kubernetes pod; keep it below the grace period
    /// of the supervisor. A fifth of it, at most 5 s, is kept for the commit and for leaving, which
    /// have 3 s in total at least. At the bound, unfinished records are left unsettled and are
    /// redelivered, and [`RunReport::clean`](super::RunReport::clean) is false. A running handler
    /// is not cancelled before.
    pub drain_timeout: Duration,
    /// Bounds how long a rebalance waits for running handlers and for the commit of their offsets
    /// before partitions are given up. Default 10 s. At the bound, unfinished records are
    /// redelivered to the next owner, and late results are ignored. The member takes no records
    /// meanwhile, and the other members of the group wait. Keep it well below
    /// `max.poll.interval.ms` (5 minutes by default): beyond that the group removes the member, and
    /// the start logs a warning. A pause by an operator waits as long for running handlers, without
    /// blocking.
    pub revoke_timeout: Duration,
    /// Bounds how long the start waits for the brokers, for each request. Default 10 s. At the
    /// bound, [`Consumer::run`](super::Consumer::run) returns the error. Later requests about the
    /// group's own topics have the same limit; after a failed one they are repeated.
    pub startup_timeout: Duration,
    /// Bounds one attempt of a handler and of the layers around it. Default: none. At the bound the
    /// attempt ends with [`Class::Timeout`](crate::handler::Class::Timeout) and is retried by
    /// [`retry`](Self::retry). Waiting for the inbox's store, the commit and the acknowledgement of
    /// published events do not count: they have limits of their own. Without this bound a handler
    /// that hangs holds its key, its place in [`concurrency`](Self::concurrency) and its
    /// partition's offset until the process ends. Set it to several times what the slowest handler
    /// needs, and give the calls that handlers make shorter timeouts, which name what did not
    /// answer.
    pub handler_timeout: Option<Duration>,
    /// When a running handler is reported: the consumer becomes not ready and logs a warning that
    /// names the record. The handler is not ended; [`handler_timeout`](Self::handler_timeout) does
    /// that. Default 60 s. It is checked six times within this time, but no more often than
    /// [`commit_interval`](Self::commit_interval). Records that wait between attempts, for a
    /// dependency or for their dead letter do not count. A worker whose thread a handler blocks is
    /// reported as well.
    pub stuck_handler_after: Duration,
    /// How partitions are assigned. Default: `cooperative-sticky`. All members of a group need the
    /// same: the group refuses a member with another choice.
    pub assignment: Assignment,
    /// Static membership (`group.instance.id`): a name that this instance keeps across restarts.
    /// Default: none. A stop does not leave the group then, and a restart within the session
    /// timeout causes no rebalance; until then nobody handles the partitions. Two instances with
    /// the same name exclude each other: with the classic protocol the newer one replaces the
    /// older, whose run fails; with [`Assignment::Broker`] the newer one waits, not ready, until
    /// the session of the older has ended.
    pub instance_id: Option<String>,
    /// When the run ends by itself. Default: never. See [`StopWhen`] for what each bound waits for.
    pub stop_when: StopWhen,
    /// How failed records are retried: in place, then through the retry topic. Default: 5 attempts
    /// in place, then after 10 s, 1 min and 10 min; see [`RetryPolicy`]. When the policy is used
    /// up, the record is dead-lettered. Outages use up nothing; they are the
    /// [`breaker`](Self::breaker)'s.
    pub retry: RetryPolicy,
    /// How a key continues after one of its records was dead-lettered. Default: its later records
    /// are handled. [`AfterDeadLetter::HoldKey`] keeps the order of a key across a replay, at the
    /// price of a key that waits for an operator.
    pub after_dead_letter: AfterDeadLetter,
    /// How long settled records stay in the retry topic before the group deletes them. Default 1 h,
    /// with a resolution of a 64th of it; deleted once a minute at most. A replay that was killed
    /// reads them to find out what it has already published. Only the beginning of a partition can
    /// be deleted: one record that waits keeps all later ones. Without the permission to delete
    /// records they stay.
    pub retry_topic_retention: Duration,
    /// When an outage of a dependency pauses all handlers, and how the dependency is probed.
    /// Default: 5 records and half of the attempts in 10 s. While a breaker is open no handler
    /// starts, no attempt is counted, and the member is not ready and names the dependency; see
    /// [`BreakerPolicy`].
    pub breaker: BreakerPolicy,
    /// Where dead letters are written. Default: `dlq.<group>.<topic>`, with the partition of the
    /// source. While the topic cannot be written, the records that failed stay unsettled and their
    /// keys wait: nothing is lost, and the member is not ready.
    pub dead_letter_topic: DeadLetterTopic,
    /// How long dead letters must be kept at least. Default: none, which means for ever. A
    /// dead-letter topic with a shorter retention causes a warning in the log and beside `/readyz`.
    /// A topic bounded by size guarantees nothing: it is accepted with [`Duration::ZERO`] only.
    pub dead_letters_kept_min: Option<Duration>,
    /// How often a running member compares the group's own topics with their required
    /// configuration, creates missing ones, and adds partitions where their source topics have
    /// more. Default 60 s, at least 2 s. A failed write to one of them causes a check within 2 s. A
    /// retry topic from which Kafka would delete parked records makes the member not ready.
    /// Settings are never changed.
    pub own_topics_interval: Duration,
    /// How many dead letters stop the member: with a broken handler, a stopped group is better than
    /// an emptied topic. Default: 100 in a row, or more than half of at least 100 in a minute; see
    /// [`FloodGuardPolicy`]. At the bound no more are written, records that failed wait, and the
    /// member is not ready, until it is restarted or an operator retries the whole group (`evenkeel
    /// groups retry-now`).
    pub flood_guard: FloodGuardPolicy,
}

impl ConsumerSettings {
    /// Creates settings for a group and its topics; all others have their defaults.
    ///
    /// ```
    /// use evenkeel::consumer::{ConsumerSettings, RecordOrdering, StopWhen};
    /// use evenkeel::recovery::{DeadLetterTopic, RetryPolicy};
    /// use std::time::Duration;
    ///
    /// // A nightly run over two topics, without the retry topic.
    /// let mut retry = RetryPolicy::default();
    /// retry.park_delays.clear();
    /// let settings = ConsumerSettings::new("reports", ["shop.orders", "shop.payments"])
    ///     .with_ordering(RecordOrdering::Partition)
    ///     .with_stop_when(StopWhen::UntilEnd)
    ///     .with_retry(retry)
    ///     .with_dead_letter_topic(DeadLetterTopic::One("reports.rejected".to_owned()))
    ///     .with_commit_interval(Duration::from_secs(5));
    /// settings.validate()?;
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    pub fn new<T: Into<String>>(
        group: impl Into<String>,
        topics: impl IntoIterator<Item = T>,
    ) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            ordering: RecordOrdering::Key,
            keyless_ordering: KeylessOrdering::Unordered,
            headers: RecordHeaders::Read,
            concurrency: 64,
            workers: None,
            in_flight_records_max: None,
            in_flight_bytes_max: 32 << 20,
            commit_interval: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(25),
            revoke_timeout: Duration::from_secs(10),
            startup_timeout: Duration::from_secs(10),
            handler_timeout: None,
            stuck_handler_after: Duration::from_secs(60),
            assignment: Assignment::CooperativeSticky,
            instance_id: None,
            stop_when: StopWhen::Endless,
            retry: RetryPolicy::default(),
            after_dead_letter: AfterDeadLetter::ContinueKey,
            retry_topic_retention: Duration::from_secs(3_600),
            breaker: BreakerPolicy::default(),
            dead_letter_topic: DeadLetterTopic::default(),
            dead_letters_kept_min: None,
            own_topics_interval: Duration::from_secs(60),
            flood_guard: FloodGuardPolicy::default(),
        }
    }

    /// The number of workers in effect: [`workers`](field@Self::workers) or its default, at least 1
    /// and at most [`concurrency`](Self::concurrency).
    ///
    /// ```
    /// use evenkeel::consumer::ConsumerSettings;
    ///
    /// let settings = ConsumerSettings::new("billing", ["shop.orders"]).with_concurrency(2);
    /// assert!(settings.workers() <= 2);
    /// assert_eq!(settings.with_workers(8).workers(), 2, "never more than handlers");
    /// ```
    pub fn workers(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers
            .unwrap_or(processors * 2)
            .clamp(1, self.concurrency.max(1))
    }

    /// The limit of admitted records in effect:
    /// [`in_flight_records_max`](field@Self::in_flight_records_max) or its default.
    ///
    /// ```
    /// use evenkeel::consumer::ConsumerSettings;
    ///
    /// let settings = ConsumerSettings::new("billing", ["shop.orders"]);
    /// assert_eq!(settings.in_flight_records_max(), 4096);
    /// assert_eq!(settings.with_concurrency(2000).in_flight_records_max(), 8000);
    /// ```
    pub fn in_flight_records_max(&self) -> usize {
        self.in_flight_records_max
            .unwrap_or_else(|| (4 * self.concurrency).max(4096))
    }
}
