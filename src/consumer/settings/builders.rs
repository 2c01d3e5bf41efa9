//! The `with_*` methods: one for each setting except the group and its topics.

use crate::consumer::settings::{
    AfterDeadLetter, Assignment, ConsumerSettings, KeylessOrdering, RecordHeaders, RecordOrdering,
    StopWhen,
};
use crate::recovery::{BreakerPolicy, DeadLetterTopic, FloodGuardPolicy, RetryPolicy};
use std::time::Duration;

impl ConsumerSettings {
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
}
