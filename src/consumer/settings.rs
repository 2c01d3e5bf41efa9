//! The settings of a consumer: fields with their defaults, and their validation.

use crate::control::control_topic;
use crate::durations::{CALL_MAX, bound};
use crate::kafka::{ConfigError, is_topic_name};
use crate::recovery::{BreakerPolicy, DeadLetterTopic, FloodGuardPolicy, RetryPolicy, retry_topic};
use std::time::Duration;

/// Which records are handled one after the other, in the order of their offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordOrdering {
    /// Records of one key of a topic. The default.
    #[default]
    Key,
    /// All records of one partition. A failed record then holds back its whole partition.
    Partition,
    /// None. Every record is handled on its own.
    Unordered,
}

/// How records without a key are ordered under [`RecordOrdering::Key`].
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RecordHeaders {
    /// With headers. CloudEvents in binary mode need them. The default.
    #[default]
    Read,
    /// Without headers: for raw handlers that need none. Saves a little time per record.
    Skip,
}

/// How partitions are assigned to the members of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Assignment {
    /// `cooperative-sticky`: a rebalance revokes only the partitions that move. The default.
    #[default]
    CooperativeSticky,
    /// `range`: one range per topic, so that equal partitions of several topics meet in one member.
    Range,
    /// `roundrobin`.
    RoundRobin,
    /// The brokers assign (KIP-848, `group.protocol=consumer`, brokers from 4.0).
    Broker,
}

/// How a key continues after one of its records was dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AfterDeadLetter {
    /// Its later records are handled. The default.
    #[default]
    GoOn,
    /// Its later records are parked until the dead letter is replayed to the group's retry topic or an operator releases
    /// the key.
    HoldKey,
}

/// When a run ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum StopWhen {
    /// Never. The default.
    #[default]
    Endless,
    /// When every record up to the end offsets at the assignment is settled.
    UntilEnd,
    /// When this many records are settled.
    Records(u64),
    /// When no record arrived for this long and all received ones are settled.
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
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use = "settings do nothing until a consumer is created with them"]
pub struct ConsumerSettings {
    /// Consumer group. Its retry, dead-letter and control topics are named after it.
    pub group: String,
    /// Topics to read. At least one; none of the group's own topics.
    pub topics: Vec<String>,
    /// Which records are handled one after the other. Default: those of one key.
    pub ordering: RecordOrdering,
    /// How records without a key are ordered under [`RecordOrdering::Key`]. Default: not at all.
    pub keyless_ordering: KeylessOrdering,
    /// Whether records are read with their headers. Default: yes.
    pub headers: RecordHeaders,
    /// Bounds the handlers that run at the same time, over all partitions and workers. Default 64. At the bound, records wait
    /// in their lanes; when the in-flight limits are reached too, the consumer takes no more records from Kafka. A handler that
    /// waits between two attempts does not count.
    pub concurrency: usize,
    /// Tasks that own the lanes and drive the handlers. Default: twice the processors, and never more than
    /// [`concurrency`](Self::concurrency). All records of a key meet in one worker.
    pub workers: Option<usize>,
    /// Bounds the records that are received and not settled. Default `max(4 × concurrency, 4096)`. At the bound the consumer
    /// takes no more records until half of it is free. It cannot be below [`concurrency`](Self::concurrency).
    pub in_flight_records_max: Option<usize>,
    /// Bounds the bytes of the records in flight. Default 32 MiB. At the bound the consumer takes no more records. A single
    /// record larger than the bound is still taken, alone.
    pub in_flight_bytes_max: usize,
    /// How often settled offsets are committed. Default 1 s; 0 is refused. A killed member repeats at most what was settled
    /// since the last commit; an inbox recognises the repetition.
    pub commit_interval: Duration,
    /// Bounds a stop: running handlers, the last commit and leaving the group, all together. Default 25 s, which fits into the
    /// 30 s of a Kubernetes pod. A fifth of it, at most 5 s, is kept for the commit. At the bound, unfinished records are left
    /// unsettled and are redelivered, and [`RunReport::clean`](super::RunReport::clean) is false.
    pub drain_timeout: Duration,
    /// Bounds how long a rebalance waits for running handlers and for the commit of their offsets before partitions are given
    /// up. Default 10 s. At the bound, unfinished records are redelivered to the next owner, and late results are ignored. Keep
    /// it well below `max.poll.interval.ms` (5 minutes by default).
    pub revoke_timeout: Duration,
    /// Bounds how long the start waits for the brokers. Default 10 s. At the bound,
    /// [`Consumer::run`](super::Consumer::run) returns the error.
    pub startup_timeout: Duration,
    /// Bounds one attempt of a handler, including the layers around it. Default: none. At the bound the attempt ends with
    /// [`Class::Timeout`](crate::handler::Class::Timeout) and is retried by [`retry`](Self::retry). Waiting for the inbox's
    /// store, the commit and the acknowledgement of published events do not count: they have limits of their own. Without this
    /// bound a handler that hangs holds its key, its place in [`concurrency`](Self::concurrency) and its partition's offset
    /// until the process ends. Set it to several times what the slowest handler needs, and give the calls that handlers make
    /// shorter timeouts, which name what did not answer.
    pub handler_timeout: Option<Duration>,
    /// When a running handler is reported: the consumer becomes not ready and logs a warning. The handler is not ended;
    /// [`handler_timeout`](Self::handler_timeout) does that. Default 60 s. Records that wait between attempts, for a dependency
    /// or for their dead letter do not count.
    pub stuck_handler_after: Duration,
    /// How partitions are assigned. Default: `cooperative-sticky`. All members of a group need the same.
    pub assignment: Assignment,
    /// Static membership (`group.instance.id`): a name that this instance keeps across restarts. Default: none. A restart within
    /// the session timeout then causes no rebalance. Two instances with the same name exclude each other.
    pub instance_id: Option<String>,
    /// When the run ends by itself. Default: never. Bounded runs serve backfills, cron jobs and CI.
    pub stop_when: StopWhen,
    /// How failed records are retried, in place and in the retry topic.
    pub retry: RetryPolicy,
    /// How a key continues after one of its records was dead-lettered. Default: its later records are handled.
    pub after_dead_letter: AfterDeadLetter,
    /// How long settled records stay in the retry topic before the group deletes them. Default 1 h. A replay that was killed
    /// reads them to find out what it has already published.
    pub retry_topic_retention: Duration,
    /// When an outage of a dependency pauses all handlers, and how the dependency is probed.
    pub breaker: BreakerPolicy,
    /// Where dead letters are written. Default: `dlq.<group>.<topic>`.
    pub dead_letter_topic: DeadLetterTopic,
    /// How long dead letters must be kept at least. Default: none, which means for ever. A dead-letter topic with a shorter
    /// retention causes a warning in the log and beside `/readyz`. A topic bounded by size guarantees nothing: it is accepted
    /// with [`Duration::ZERO`] only.
    pub dead_letters_kept_min: Option<Duration>,
    /// How often a running member compares the group's own topics with what they must be, and adds partitions where their
    /// source topics have more. Default 60 s. A retry topic from which Kafka would delete parked records makes the member not
    /// ready.
    pub own_topics_interval: Duration,
    /// How many dead letters stop the member: with a broken handler, a stopped group is better than an emptied topic.
    pub flood_guard: FloodGuardPolicy,
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

    /// Sets which records are handled one after the other.
    pub fn with_ordering(mut self, ordering: RecordOrdering) -> Self {
        self.ordering = ordering;
        self
    }

    /// Sets how records without a key are ordered.
    pub fn with_keyless_ordering(mut self, keyless_ordering: KeylessOrdering) -> Self {
        self.keyless_ordering = keyless_ordering;
        self
    }

    /// Sets whether records are read with their headers.
    pub fn with_headers(mut self, headers: RecordHeaders) -> Self {
        self.headers = headers;
        self
    }

    /// Sets how many handlers run at the same time.
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }

    /// Sets the number of tasks that drive handlers. None means twice the processors.
    pub fn with_workers(mut self, workers: impl Into<Option<usize>>) -> Self {
        self.workers = workers.into();
        self
    }

    /// Sets how many records are in flight at most. None means `max(4 × concurrency, 4096)`.
    pub fn with_in_flight_records_max(
        mut self,
        in_flight_records_max: impl Into<Option<usize>>,
    ) -> Self {
        self.in_flight_records_max = in_flight_records_max.into();
        self
    }

    /// Sets how many bytes of records are in flight at most.
    pub fn with_in_flight_bytes_max(mut self, in_flight_bytes_max: usize) -> Self {
        self.in_flight_bytes_max = in_flight_bytes_max;
        self
    }

    /// Sets the time between two commits.
    pub fn with_commit_interval(mut self, commit_interval: Duration) -> Self {
        self.commit_interval = commit_interval;
        self
    }

    /// Sets how long a stop takes at most.
    pub fn with_drain_timeout(mut self, drain_timeout: Duration) -> Self {
        self.drain_timeout = drain_timeout;
        self
    }

    /// Sets how long a rebalance waits for running handlers.
    pub fn with_revoke_timeout(mut self, revoke_timeout: Duration) -> Self {
        self.revoke_timeout = revoke_timeout;
        self
    }

    /// Sets how long the start waits for the brokers.
    pub fn with_startup_timeout(mut self, startup_timeout: Duration) -> Self {
        self.startup_timeout = startup_timeout;
        self
    }

    /// Sets how long one attempt runs at most. None means for ever.
    pub fn with_handler_timeout(mut self, handler_timeout: impl Into<Option<Duration>>) -> Self {
        self.handler_timeout = handler_timeout.into();
        self
    }

    /// Sets when a running handler is reported.
    pub fn with_stuck_handler_after(mut self, stuck_handler_after: Duration) -> Self {
        self.stuck_handler_after = stuck_handler_after;
        self
    }

    /// Sets how partitions are assigned.
    pub fn with_assignment(mut self, assignment: Assignment) -> Self {
        self.assignment = assignment;
        self
    }

    /// Sets the name of a static member. Without it the membership is dynamic.
    pub fn with_instance_id(mut self, instance_id: impl Into<String>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    /// Sets when the run ends by itself.
    pub fn with_stop_when(mut self, stop_when: StopWhen) -> Self {
        self.stop_when = stop_when;
        self
    }

    /// Sets how failed records are retried.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Sets how a key continues after a dead letter.
    pub fn with_after_dead_letter(mut self, after_dead_letter: AfterDeadLetter) -> Self {
        self.after_dead_letter = after_dead_letter;
        self
    }

    /// Sets how long settled records stay in the retry topic.
    pub fn with_retry_topic_retention(mut self, retry_topic_retention: Duration) -> Self {
        self.retry_topic_retention = retry_topic_retention;
        self
    }

    /// Sets when an outage pauses all handlers.
    pub fn with_breaker(mut self, breaker: BreakerPolicy) -> Self {
        self.breaker = breaker;
        self
    }

    /// Sets where dead letters are written.
    pub fn with_dead_letter_topic(mut self, dead_letter_topic: DeadLetterTopic) -> Self {
        self.dead_letter_topic = dead_letter_topic;
        self
    }

    /// Sets how long dead letters must be kept at least. None means for ever.
    pub fn with_dead_letters_kept_min(
        mut self,
        dead_letters_kept_min: impl Into<Option<Duration>>,
    ) -> Self {
        self.dead_letters_kept_min = dead_letters_kept_min.into();
        self
    }

    /// Sets the time between two checks of the group's own topics.
    pub fn with_own_topics_interval(mut self, own_topics_interval: Duration) -> Self {
        self.own_topics_interval = own_topics_interval;
        self
    }

    /// Sets how many dead letters stop the member.
    pub fn with_flood_guard(mut self, flood_guard: FloodGuardPolicy) -> Self {
        self.flood_guard = flood_guard;
        self
    }

    /// The number of workers in effect.
    pub fn workers(&self) -> usize {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers
            .unwrap_or(processors * 2)
            .clamp(1, self.concurrency.max(1))
    }

    /// The limit of admitted records in effect.
    pub fn in_flight_records_max(&self) -> usize {
        self.in_flight_records_max
            .unwrap_or_else(|| (4 * self.concurrency).max(4096))
    }

    /// The same with durations that can be reckoned with: [`Duration::MAX`] means for ever.
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

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// Names the setting and what to do about it.
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

    /// The topics that the group has for itself.
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

    /// Why a topic cannot take the group's dead letters; none where it can.
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

    /// Whether a topic is one that the group has for itself, or would have if it read other topics.
    fn is_own(&self, topic: &str) -> bool {
        let prefixes = [
            retry_topic(&self.group, ""),
            DeadLetterTopic::PerTopic.of(&self.group, ""),
        ];
        topic == control_topic(&self.group)
            || prefixes.iter().any(|prefix| topic.starts_with(prefix))
    }
}

/// Whether two names are one to Kafka, which has no two topics that differ in dots and underscores only.
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
