//! The settings of a consumer: fields with their defaults, and their validation.
//!
//! [`ConsumerSettings::validate`] refuses contradictions. [`ConsumerSettings::bounded`] then cuts
//! durations to values that can be added, so that no later sum is checked: both run once, in
//! [`Consumer::new`](super::Consumer::new).

use crate::control::control_topic;
use crate::durations::{CALL_MAX, bound};
use crate::kafka::{ConfigError, is_topic_name};
use crate::recovery::{BreakerPolicy, DeadLetterTopic, FloodGuardPolicy, RetryPolicy, retry_topic};
use std::time::Duration;

/// Which records are handled one after the other, in the order of their offsets.
///
/// The choice decides what a failed record holds back while it is retried in place, and what is
/// parked behind it afterwards.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, KeylessOrdering, RecordOrdering};
///
/// let by_key = ConsumerSettings::new("billing", ["shop.orders"])
///     .with_keyless_ordering(KeylessOrdering::Partition);
/// assert_eq!(by_key.ordering, RecordOrdering::Key);
///
/// // A change log without keys whose lines build on each other.
/// let by_partition = ConsumerSettings::new("replica", ["db.changes"])
///     .with_ordering(RecordOrdering::Partition);
/// # drop((by_key, by_partition));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordOrdering {
    /// Records of one key of a topic. The default. A failed record holds back its key only, also
    /// while it is parked. The same key in two topics has two orders.
    #[default]
    Key,
    /// All records of one partition. A failed record then holds back its whole partition.
    Partition,
    /// None. Every record is handled on its own.
    Unordered,
}

/// How records without a key are ordered under [`RecordOrdering::Key`]. An empty key is a key.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, KeylessOrdering};
///
/// // Producers that spread keyless lines over partitions, in the order of each partition.
/// let lines = ConsumerSettings::new("indexer", ["app.log"])
///     .with_keyless_ordering(KeylessOrdering::Partition);
/// # drop(lines);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KeylessOrdering {
    /// Not at all: each is handled on its own. The default.
    #[default]
    Unordered,
    /// Like records of one key, in each partition.
    Partition,
}

/// Whether the consumer reads the headers of records.
///
/// A record that was read without headers and fails is read again with them, by a client of its
/// own, before it is parked or dead-lettered: no header is lost. That read is repeated until the
/// brokers answer.
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, RecordHeaders};
///
/// // For a raw handler that copies values to a disk.
/// let settings = ConsumerSettings::new("archive", ["shop.orders"])
///     .with_headers(RecordHeaders::Skip);
/// assert_eq!(settings.headers, RecordHeaders::Skip);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordHeaders {
    /// With headers. CloudEvents in binary mode need them. The default.
    #[default]
    Read,
    /// Without headers: for raw handlers that need none. Saves a little time per record.
    Skip,
}

/// How partitions are assigned to the members of the group. All members need the same choice.
///
/// | variant | who assigns | a rebalance revokes | needs |
/// |---|---|---|---|
/// | `CooperativeSticky` | a member | the partitions that move | |
/// | `Range`, `RoundRobin` | a member | all partitions | |
/// | `Broker` | the group's coordinator | the partitions that move | brokers from 4.0 |
///
/// ```
/// use evenkeel::consumer::{Assignment, ConsumerSettings};
///
/// // Orders and payments of one key meet in one member: equal keys, equal numbers of partitions.
/// let joined = ConsumerSettings::new("joiner", ["shop.orders", "shop.payments"])
///     .with_assignment(Assignment::Range);
/// assert_eq!(joined.assignment, Assignment::Range);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignment {
    /// `cooperative-sticky`: a rebalance revokes only the partitions that move. The default.
    #[default]
    CooperativeSticky,
    /// `range`: one range per topic, so that equal partitions of several topics meet in one member.
    /// A rebalance revokes all partitions of every member first.
    Range,
    /// `roundrobin`: all partitions of all topics, one by one over the members. A rebalance revokes
    /// all partitions of every member first.
    RoundRobin,
    /// The brokers assign (KIP-848, `group.protocol=consumer`, brokers from 4.0). The client's
    /// `session.timeout.ms` and `heartbeat.interval.ms` do not apply: the brokers have them. The
    /// client property `group.protocol=consumer` selects this variant as well.
    Broker,
}

/// How a key continues after one of its records was dead-lettered.
///
/// Skips by an operator never hold a key.
///
/// ```
/// use evenkeel::consumer::{AfterDeadLetter, ConsumerSettings};
///
/// // A balance must not be booked after one that failed.
/// let ledger = ConsumerSettings::new("ledger", ["shop.payments"])
///     .with_after_dead_letter(AfterDeadLetter::HoldKey);
/// # drop(ledger);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterDeadLetter {
    /// Its later records are handled. The default.
    #[default]
    GoOn,
    /// Its later records are parked until the dead letter is replayed to the group's retry topic or
    /// an operator releases the key. Needs a retry topic and a record with an ordering key:
    /// otherwise the later records are handled.
    HoldKey,
}

/// When a run ends by itself. Bounded runs serve backfills, cron jobs and CI.
///
/// A bounded run drains and commits like a stop that was requested, and then returns
/// [`Stopped::BoundReached`](super::Stopped::BoundReached). A partition that cannot be read until
/// an operator acts ends it with [`ConsumerError::Unreadable`](super::ConsumerError::Unreadable).
///
/// ```
/// use evenkeel::consumer::{ConsumerSettings, StopWhen};
/// use std::time::Duration;
///
/// let nightly = ConsumerSettings::new("report", ["shop.orders"])
///     .with_stop_when(StopWhen::UntilEnd);
/// let sample = ConsumerSettings::new("sample", ["shop.orders"])
///     .with_stop_when(StopWhen::Records(100));
/// let test = ConsumerSettings::new("test", ["shop.orders"])
///     .with_stop_when(StopWhen::Idle(Duration::from_secs(5)));
/// # drop((nightly, sample, test));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StopWhen {
    /// Never. The default.
    #[default]
    Endless,
    /// When every record up to the end offsets at the assignment is settled, and every record that
    /// was parked and due by then. The ends are looked up once per assignment. If they stay unknown
    /// for 60 s, the run fails.
    UntilEnd,
    /// When this many records are settled. No more are taken. Records that were released unsettled
    /// by a rebalance do not count: their next owner has them.
    Records(u64),
    /// When no record arrived for this long and all received ones are settled. Times in which no
    /// record can arrive do not count: an open breaker, a pause or rate limit by an operator, a log
    /// reset.
    Idle(Duration),
}

/// How a consumer behaves. [`ConsumerSettings::new`] sets every default; change the fields that differ.
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
    /// Bounds one attempt of a handler, including the layers around it. Default: none. At the bound the attempt ends with
    /// [`Class::Timeout`](crate::handler::Class::Timeout) and is retried by [`retry`](Self::retry). Waiting for the inbox's
    /// store, the commit and the acknowledgement of published events do not count: they have limits of their own. Without this
    /// bound a handler that hangs holds its key, its place in [`concurrency`](Self::concurrency) and its partition's offset
    /// until the process ends. Set it to several times what the slowest handler needs, and give the calls that handlers make
    /// shorter timeouts, which name what did not answer.
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
    /// How failed records are retried: in place, then parked in the retry topic, then not any more.
    /// Default: 5 attempts in place, then after 10 s, 1 min and 10 min; see [`RetryPolicy`]. When
    /// the policy is used up, the record is dead-lettered. Outages use up nothing; they are the
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
    /// How long dead letters must be kept at least. Default: none, which means for ever. A dead-letter topic with a shorter
    /// retention causes a warning in the log and beside `/readyz`. A topic bounded by size guarantees nothing: it is accepted
    /// with [`Duration::ZERO`] only.
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
            after_dead_letter: AfterDeadLetter::GoOn,
            retry_topic_retention: Duration::from_secs(3_600),
            breaker: BreakerPolicy::default(),
            dead_letter_topic: DeadLetterTopic::default(),
            dead_letters_kept_min: None,
            own_topics_interval: Duration::from_secs(60),
            flood_guard: FloodGuardPolicy::default(),
        }
    }

    /// Sets which records are handled one after the other: [`ordering`](Self::ordering).
    pub fn with_ordering(mut self, ordering: RecordOrdering) -> Self {
        self.ordering = ordering;
        self
    }

    /// Sets how records without a key are ordered: [`keyless_ordering`](Self::keyless_ordering).
    pub fn with_keyless_ordering(mut self, keyless_ordering: KeylessOrdering) -> Self {
        self.keyless_ordering = keyless_ordering;
        self
    }

    /// Sets whether records are read with their headers: [`headers`](Self::headers).
    pub fn with_headers(mut self, headers: RecordHeaders) -> Self {
        self.headers = headers;
        self
    }

    /// Sets how many handlers run at the same time: [`concurrency`](Self::concurrency).
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets the number of tasks that drive handlers: [`workers`](field@Self::workers). None means
    /// the default, twice the processors.
    pub fn with_workers(mut self, workers: impl Into<Option<usize>>) -> Self {
        self.workers = workers.into();
        self
    }

    /// Sets how many records are in flight at most:
    /// [`in_flight_records_max`](field@Self::in_flight_records_max). None means the default, `max(4
    /// × concurrency, 4096)`.
    pub fn with_in_flight_records_max(
        mut self,
        in_flight_records_max: impl Into<Option<usize>>,
    ) -> Self {
        self.in_flight_records_max = in_flight_records_max.into();
        self
    }

    /// Sets how many bytes of records are in flight at most:
    /// [`in_flight_bytes_max`](Self::in_flight_bytes_max).
    pub fn with_in_flight_bytes_max(mut self, in_flight_bytes_max: usize) -> Self {
        self.in_flight_bytes_max = in_flight_bytes_max;
        self
    }

    /// Sets the time between two commits: [`commit_interval`](Self::commit_interval).
    pub fn with_commit_interval(mut self, commit_interval: Duration) -> Self {
        self.commit_interval = commit_interval;
        self
    }

    /// Sets how long a stop takes at most: [`drain_timeout`](Self::drain_timeout).
    pub fn with_drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Sets how long a rebalance waits for running handlers:
    /// [`revoke_timeout`](Self::revoke_timeout).
    pub fn with_revoke_timeout(mut self, revoke_timeout: Duration) -> Self {
        self.revoke_timeout = revoke_timeout;
        self
    }

    /// Sets how long the start waits for the brokers: [`startup_timeout`](Self::startup_timeout).
    pub fn with_startup_timeout(mut self, startup_timeout: Duration) -> Self {
        self.startup_timeout = startup_timeout;
        self
    }

    /// Sets how long one attempt runs at most: [`handler_timeout`](Self::handler_timeout). None,
    /// the default, sets no limit.
    pub fn with_handler_timeout(mut self, handler_timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = handler_timeout.into();
        self
    }

    /// Sets when a running handler is reported: [`stuck_handler_after`](Self::stuck_handler_after).
    pub fn with_stuck_handler_after(mut self, stuck_handler_after: Duration) -> Self {
        self.stuck_handler_after = stuck_handler_after;
        self
    }

    /// Sets how partitions are assigned: [`assignment`](Self::assignment).
    pub fn with_assignment(mut self, assignment: Assignment) -> Self {
        self.assignment = assignment;
        self
    }

    /// Sets the name of a static member: [`instance_id`](Self::instance_id). Without it the
    /// membership is dynamic.
    pub fn with_instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    /// Sets when the run ends by itself: [`stop_when`](Self::stop_when).
    pub fn with_stop_when(mut self, stop_when: StopWhen) -> Self {
        self.stop_when = stop_when;
        self
    }

    /// Sets how failed records are retried: [`retry`](Self::retry).
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how a key continues after a dead letter:
    /// [`after_dead_letter`](Self::after_dead_letter).
    pub fn with_after_dead_letter(mut self, after_dead_letter: AfterDeadLetter) -> Self {
        self.after_dead_letter = after_dead_letter;
        self
    }

    /// Sets how long settled records stay in the retry topic:
    /// [`retry_topic_retention`](Self::retry_topic_retention).
    pub fn with_retry_topic_retention(mut self, retry_topic_retention: Duration) -> Self {
        self.retry_topic_retention = retry_topic_retention;
        self
    }

    /// Sets when an outage pauses all handlers: [`breaker`](Self::breaker).
    pub fn with_breaker(mut self, breaker: BreakerPolicy) -> Self {
        self.breaker = breaker;
        self
    }

    /// Sets where dead letters are written: [`dead_letter_topic`](Self::dead_letter_topic).
    pub fn with_dead_letter_topic(mut self, dead_letter_topic: DeadLetterTopic) -> Self {
        self.dead_letter_topic = dead_letter_topic;
        self
    }

    /// Sets how long dead letters must be kept at least:
    /// [`dead_letters_kept_min`](Self::dead_letters_kept_min). None, the default, means for ever.
    pub fn with_dead_letters_kept_min(
        mut self,
        dead_letters_kept_min: impl Into<Option<Duration>>,
    ) -> Self {
        self.dead_letters_kept_min = dead_letters_kept_min.into();
        self
    }

    /// Sets the time between two checks of the group's own topics:
    /// [`own_topics_interval`](Self::own_topics_interval).
    pub fn with_own_topics_interval(mut self, own_topics_interval: Duration) -> Self {
        self.own_topics_interval = own_topics_interval;
        self
    }

    /// Sets how many dead letters stop the member: [`flood_guard`](Self::flood_guard).
    pub fn with_flood_guard(mut self, flood_guard: FloodGuardPolicy) -> Self {
        self.flood_guard = flood_guard;
        self
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

    /// The same with durations that can be added to instants: [`Duration::MAX`] means for ever.
    pub(crate) fn bounded(mut self) -> Self {
        bound([
            &mut self.commit_interval,
            &mut self.drain_timeout,
            &mut self.revoke_timeout,
            &mut self.stuck_handler_after,
            &mut self.retry_topic_retention,
            &mut self.flood_guard.window,
            &mut self.breaker.window,
        ]);
        bound(&mut self.handler_timeout);
        bound(&mut self.retry.park_delays);
        self.retry.backoff = self.retry.backoff.bounded();
        self.breaker.probe = self.breaker.probe.bounded();
        self.startup_timeout = self.startup_timeout.min(CALL_MAX);
        if let StopWhen::Idle(idle) = &mut self.stop_when {
            bound([idle]);
        }
        self
    }

    /// Checks the settings against each other. [`Consumer::new`](super::Consumer::new) calls it, so
    /// that a service need not; a tool that only parses settings does.
    ///
    /// # Errors
    /// Returns the name of the setting and the remedy: an empty group or topic list, an invalid
    /// topic name, a topic of the group's own among the sources, a dead-letter topic whose records
    /// would come back, a limit of 0, an in-flight limit below the concurrency, or a commit
    /// interval of 0.
    ///
    /// ```
    /// use evenkeel::consumer::ConsumerSettings;
    ///
    /// let settings = ConsumerSettings::new("payments", ["retry.payments.shop.orders"]);
    /// let error = settings.validate().expect_err("its own retry topic");
    /// assert_eq!(error.setting, "topics");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.group.is_empty() {
            return Err(ConfigError::new(
                "group",
                "is empty; give the consumer group a name",
            ));
        }
        if self.topics.is_empty() {
            return Err(ConfigError::new(
                "topics",
                "is empty; name at least one topic",
            ));
        }
        if let Some(topic) = self.topics.iter().find(|topic| !is_topic_name(topic)) {
            return Err(ConfigError::new(
                "topics",
                format!(
                    "{topic:?} is not a topic name; use at most 249 letters, digits, dots, underscores and hyphens"
                ),
            ));
        }
        self.validate_own_topics()?;
        let positive = [
            ("concurrency", self.concurrency),
            ("workers", self.workers.unwrap_or(1)),
            ("in_flight_records_max", self.in_flight_records_max()),
            ("in_flight_bytes_max", self.in_flight_bytes_max),
        ];
        if let Some((setting, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(*setting, "is 0; it must be at least 1"));
        }
        if self.in_flight_records_max() < self.concurrency {
            return Err(ConfigError::new(
                "in_flight_records_max",
                "is smaller than concurrency; handlers could never all run",
            ));
        }
        if self.commit_interval.is_zero() {
            return Err(ConfigError::new(
                "commit_interval",
                "is 0; commit at an interval such as 1 s, settled records are not lost in between",
            ));
        }
        Ok(())
    }

    /// Checks the names of the group's own topics, and that they are apart from the sources.
    fn validate_own_topics(&self) -> Result<(), ConfigError> {
        if let DeadLetterTopic::One(name) = &self.dead_letter_topic
            && let Some(reason) = self.unfit_for_dead_letters(name)
        {
            return Err(ConfigError::new(
                "dead_letter_topic",
                format!("{name:?} {reason}"),
            ));
        }
        if let Some(topic) = self.topics.iter().find(|topic| self.is_own(topic)) {
            return Err(ConfigError::new(
                "topics",
                format!(
                    "{topic:?} is one of the own topics of the group {}; read it with another group",
                    self.group
                ),
            ));
        }
        let own = |topic: &String| {
            [
                self.dead_letter_topic.of(&self.group, topic),
                retry_topic(&self.group, topic),
            ]
        };
        match self
            .topics
            .iter()
            .flat_map(own)
            .find(|name| !is_topic_name(name))
        {
            None => Ok(()),
            Some(name) => Err(ConfigError::new(
                "group",
                format!(
                    "one of its own topics would be {name:?}, which is not a topic name; use letters, digits, dots, \
                     underscores and hyphens, and keep group and topic short enough for 249 bytes"
                ),
            )),
        }
    }

    /// Why a topic cannot take the group's dead letters. None if it can.
    fn unfit_for_dead_letters(&self, name: &str) -> Option<&'static str> {
        if !is_topic_name(name) {
            Some(
                "is not a topic name; use at most 249 letters, digits, dots, underscores and hyphens",
            )
        } else if self
            .topics
            .iter()
            .any(|topic| are_equal_to_kafka(topic, name))
        {
            Some(
                "is one of the topics that the group reads; a record that fails there would be redelivered forever",
            )
        } else if name.starts_with("retry.") {
            Some("is a retry topic; the group that owns it would handle the dead letters again")
        } else if name.starts_with("control.") {
            Some("is a control topic, which accepts commands only")
        } else {
            None
        }
    }

    /// Whether a topic is one of the group's own, or would be if the group read other topics.
    fn is_own(&self, topic: &str) -> bool {
        let prefixes = [
            retry_topic(&self.group, ""),
            DeadLetterTopic::PerTopic.of(&self.group, ""),
        ];
        topic == control_topic(&self.group)
            || prefixes.iter().any(|prefix| topic.starts_with(prefix))
    }
}

/// Whether Kafka treats two names as equal: it allows no two topics that differ in dots and
/// underscores only, because both become underscores in names of metrics.
pub(crate) fn are_equal_to_kafka(one: &str, other: &str) -> bool {
    let plain = |byte: u8| if byte == b'.' { b'_' } else { byte };
    one.len() == other.len() && one.bytes().map(plain).eq(other.bytes().map(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The setting that is refused; none where all are accepted.
    fn refused(settings: &ConsumerSettings) -> Option<String> {
        settings.validate().err().map(|error| error.to_string())
    }

    fn of(group: &str, topics: &[&str]) -> ConsumerSettings {
        ConsumerSettings::new(group, topics.iter().copied())
    }

    #[test]
    fn a_group_reads_no_topic_that_it_has_for_itself() {
        for own in [
            "retry.g.orders",
            "dlq.g.orders",
            "control.g",
            "retry.g.other",
        ] {
            let error = refused(&of("g", &["orders", own])).expect("refused");
            assert!(
                error.contains(own) && error.contains("another group"),
                "{error}"
            );
            assert!(refused(&of("g", &[own])).is_some(), "alone, too");
            assert_eq!(refused(&of("watcher", &[own])), None, "{own}");
        }
        assert_eq!(
            refused(&of("g", &["retry.gx.orders", "control.gx", "dlq"])),
            None
        );
    }

    #[test]
    fn dead_letters_go_to_no_topic_that_brings_them_back() {
        let to = |name: &str| {
            let mut settings = of("g", &["shop.orders"]);
            settings.dead_letter_topic = DeadLetterTopic::One(name.to_owned());
            refused(&settings)
        };
        for bad in [
            "shop.orders",
            "shop_orders",
            "retry.g.shop.orders",
            "retry.other.t",
            "control.g",
            "no topic",
            &"x".repeat(250),
        ] {
            let error = to(bad).expect(bad);
            assert!(error.contains("dead_letter_topic"), "{error}");
        }
        assert_eq!(to("dlq.g.shop.orders"), None);
        assert_eq!(to("graveyard"), None);
    }

    #[test]
    fn names_that_are_too_long_are_refused() {
        let longest = 249 - "retry.g.".len();
        assert_eq!(refused(&of("g", &[&"t".repeat(longest)])), None);
        let error = refused(&of("g", &[&"t".repeat(longest + 1)])).expect("refused");
        assert!(error.contains("249 bytes"), "{error}");
        assert!(refused(&of(&"g".repeat(248), &["t"])).is_some());
    }

    #[test]
    fn names_that_differ_in_dots_are_one_to_kafka() {
        assert!(are_equal_to_kafka("retry.my.app.t", "retry.my_app.t"));
        assert!(!are_equal_to_kafka("retry.my-app.t", "retry.my_app.t"));
        assert!(!are_equal_to_kafka("a.b", "a.b.c"));
    }
}
