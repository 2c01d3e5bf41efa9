//! How a consumer behaves: documented fields, defaults, one `validate`.

use crate::control::control_topic;
use crate::durations::{CALL_MAX, bound};
use crate::kafka::{ConfigError, is_topic_name};
use crate::recovery::{BreakerPolicy, DeadLetterTopic, FloodGuardPolicy, RetryPolicy, retry_topic};
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

/// Whether records come with their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordHeaders {
    /// With headers, which CloudEvents in binary mode need. The default.
    #[default]
    Read,
    /// Without: for raw handlers that need none, at a little less cost per record.
    Skip,
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

/// What becomes of a key after a record of it is dead-lettered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AfterDeadLetter {
    /// Its later records are handled. The default.
    #[default]
    GoOn,
    /// Its later records are parked, until the dead letter is replayed to the group's retry topic, or the key is released.
    HoldKey,
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
    /// Whether records come with their headers.
    pub headers: RecordHeaders,
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
    /// How long a revoke waits for running handlers. Keep it well below `max.poll.interval.ms` (5 minutes by default).
    pub revoke_timeout: Duration,
    /// How long the start waits for the brokers.
    pub startup_timeout: Duration,
    /// How long a handler may run, the layers around it included, before the attempt ends with
    /// [`Class::Timeout`](crate::handler::Class::Timeout). Its turn at the inbox's store, the commit and the acknowledgements of
    /// what it published do not count: they have limits of their own, and reaching one is an outage. None, the default, lets it
    /// run for ever: a handler that hangs holds its key, its place among [`Self::concurrency`] and the offset of its partition
    /// until the process ends. Set it to several times what the slowest handler needs, and give the calls that handlers make
    /// shorter timeouts, which name what did not answer.
    pub handler_timeout: Option<Duration>,
    /// A handler that runs for longer makes the consumer not ready and is logged; it is not ended. Default 60 s. Records that
    /// wait between attempts, for a dependency or for their dead letter do not count.
    pub stuck_after: Duration,
    /// How partitions are assigned.
    pub assignment: Assignment,
    /// Static membership: a name that stays the same across restarts of this instance.
    pub instance_id: Option<String>,
    /// When the run ends by itself.
    pub bound: Bound,
    /// How failures are retried.
    pub retry: RetryPolicy,
    /// What becomes of a key after a record of it is dead-lettered.
    pub after_dead_letter: AfterDeadLetter,
    /// How long a record of a retry topic stays after it was settled. A replay that was killed looks there for what it had
    /// published already.
    pub settled_parked_kept: Duration,
    /// When an outage of something that handlers depend on stops them all.
    pub breaker: BreakerPolicy,
    /// Where records go that are given up.
    pub dead_letter_topic: DeadLetterTopic,
    /// How long dead letters are to be kept at least; none, the default, for ever. A dead-letter topic that keeps them for less
    /// is warned of, in the log and beside `/readyz`. A topic bounded by size keeps nothing for sure: it is accepted with
    /// [`Duration::ZERO`] only.
    pub dead_letters_kept_min: Option<Duration>,
    /// How often a running member compares the group's own topics with what they have to be, and gives them the partitions that
    /// their sources were given. Default 60 s. A retry topic from which Kafka would delete parked records makes the member
    /// unready.
    pub own_topics_interval: Duration,
    /// When so many are given up that the member stops doing it.
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
            ordering: Ordering::Key,
            keyless: Keyless::Unordered,
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
            stuck_after: Duration::from_secs(60),
            assignment: Assignment::CooperativeSticky,
            instance_id: None,
            bound: Bound::Endless,
            retry: RetryPolicy::default(),
            after_dead_letter: AfterDeadLetter::GoOn,
            settled_parked_kept: Duration::from_secs(3_600),
            breaker: BreakerPolicy::default(),
            dead_letter_topic: DeadLetterTopic::default(),
            dead_letters_kept_min: None,
            own_topics_interval: Duration::from_secs(60),
            flood_guard: FloodGuardPolicy::default(),
        }
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
    pub(super) fn bounded(mut self) -> Self {
        bound([
            &mut self.commit_interval,
            &mut self.drain_timeout,
            &mut self.revoke_timeout,
            &mut self.stuck_after,
            &mut self.settled_parked_kept,
            &mut self.flood_guard.window,
            &mut self.breaker.window,
        ]);
        bound(&mut self.handler_timeout);
        bound(&mut self.retry.park_delays);
        self.retry.backoff = self.retry.backoff.bounded();
        self.breaker.probe = self.breaker.probe.bounded();
        self.startup_timeout = self.startup_timeout.min(CALL_MAX);
        if let Bound::Idle(idle) = &mut self.bound {
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
                    "{topic:?} is no topic name; use at most 249 letters, digits, dots, underscores and hyphens"
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
                    "{topic:?} is a topic that the group {} has for itself; read it with another group",
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
                    "a topic of its own would be {name:?}, which is no topic name; use letters, digits, dots, \
                     underscores and hyphens, and keep group and topic short enough for 249 bytes"
                ),
            )),
        }
    }

    /// Why a topic cannot take the group's dead letters; none where it can.
    fn unfit_for_dead_letters(&self, name: &str) -> Option<&'static str> {
        if !is_topic_name(name) {
            Some("is no topic name; use at most 249 letters, digits, dots, underscores and hyphens")
        } else if self
            .topics
            .iter()
            .any(|topic| are_equal_to_kafka(topic, name))
        {
            Some(
                "is one of the topics that the group reads; a record that fails there would come again for ever",
            )
        } else if name.starts_with("retry.") {
            Some(
                "is a retry topic; what is written there is handled again, by the group that has it",
            )
        } else if name.starts_with("control.") {
            Some("is a control topic, which takes commands only")
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
pub(super) fn are_equal_to_kafka(one: &str, other: &str) -> bool {
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
