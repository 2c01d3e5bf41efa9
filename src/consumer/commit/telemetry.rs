//! The logs and metrics of the committing thread: each fact is logged and counted in one place.

use crate::consumer::commit::requests::OwnedPartition;
use crate::consumer::shared::Shared;
use crate::event::Record;
use crate::telemetry::{Metric, mark_failed};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use std::time::{Duration, Instant};
use tracing::Span;

/// The counters of a consumer's commits.
pub(super) struct CommitCounters {
    pub(super) ok: metrics::Counter,
    pub(super) failed: metrics::Counter,
}

impl CommitCounters {
    /// The counters of this group.
    pub(super) fn new(group: &str) -> Self {
        let counter = |result: &'static str| {
            metrics::counter!(
                Metric::Commits.name(),
                "group" => group.to_owned(),
                "result" => result
            )
        };
        Self {
            ok: counter("ok"),
            failed: counter("error"),
        }
    }
}

/// The gauges of a partition that is committed for.
pub(super) struct PartitionGauges {
    lag: metrics::Gauge,
    oldest_seconds: metrics::Gauge,
    /// Waiting keys and waiting records of a retry partition.
    parked: [metrics::Gauge; 2],
}

impl PartitionGauges {
    /// The gauges of this partition. Those of parked records exist for a retry partition only.
    pub(super) fn new(shared: &Shared, owned: &OwnedPartition) -> Self {
        let partition = owned.partition.to_string();
        let gauge_of = |metric, group_label| {
            let labels = [
                (group_label, shared.group.as_str()),
                ("topic", &*owned.topic),
                ("partition", &*partition),
            ];
            shared.health.gauge(metric, &labels)
        };
        let lag = gauge_of(Metric::Lag, "consumergroup");
        let gauge = |metric| gauge_of(metric, "group");
        let oldest_seconds = gauge(Metric::OldestUnsettledSeconds);
        let parked = match owned.parked_of {
            Some(_) => [gauge(Metric::ParkedKeys), gauge(Metric::ParkedRecords)],
            None => [metrics::Gauge::noop(), metrics::Gauge::noop()],
        };
        Self {
            lag,
            oldest_seconds,
            parked,
        }
    }

    /// Gauges that nobody reads.
    #[cfg(test)]
    pub(super) fn noop() -> Self {
        Self {
            lag: metrics::Gauge::noop(),
            oldest_seconds: metrics::Gauge::noop(),
            parked: [metrics::Gauge::noop(), metrics::Gauge::noop()],
        }
    }

    /// Sets the number of records after the settled ones.
    pub(super) fn set_lag(&self, records: i64) {
        self.lag.set(records.max(0) as f64);
    }

    /// Sets the age of the oldest unsettled record; 0 if all are settled.
    pub(super) fn set_oldest(&self, received_at: Option<Instant>) {
        let age = received_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
        self.oldest_seconds.set(age);
    }

    /// Sets the numbers of waiting keys and records.
    pub(super) fn set_parked(&self, keys: usize, records: usize) {
        self.parked[0].set(keys as f64);
        self.parked[1].set(records as f64);
    }

    /// Sets all gauges to 0: series do not expire.
    pub(super) fn clear(&self) {
        self.lag.set(0.0);
        self.oldest_seconds.set(0.0);
        self.parked.iter().for_each(|gauge| gauge.set(0.0));
    }
}

/// Adds the failure of a commit to its span: the error of the request, or the first refusal.
pub(super) fn commit_ended(span: &Span, committed: &KafkaResult<Vec<Option<Code>>>) {
    if span.is_disabled() {
        return;
    }
    let failure = match committed {
        Ok(refusals) => refusals.iter().flatten().next().copied(),
        Err(error) => Some(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
    };
    if let Some(code) = failure {
        mark_failed(span, &format!("{code:?}"));
    }
}

/// Logs a commit that failed as a whole.
pub(super) fn commit_failed(group: &str, error: &KafkaError, partitions: usize) {
    tracing::warn!(
        group,
        %error,
        partitions,
        "offsets not committed; the next commit includes them, or their records are redelivered"
    );
}

/// Logs a refused commit of one partition.
pub(super) fn commit_refused(group: &str, owned: &OwnedPartition, code: Code) {
    tracing::warn!(
        group,
        topic = %owned.topic,
        partition = owned.partition,
        error = %code,
        "the partition's offset is not committed; the commit is retried, or its records are redelivered"
    );
}

/// Logs that the brokers accept only `bytes_max` bytes of metadata.
pub(super) fn metadata_limited(group: &str, code: Code, bytes_max: usize) {
    tracing::warn!(
        group,
        error = %code,
        bytes_max,
        "the brokers accept less commit metadata; records settled behind a slow one that do not fit are handled again after a restart"
    );
}

/// Counts a commit whose metadata has no room for all settled offsets. Logs the first in a row.
pub(super) fn metadata_cut(group: &str, owned: &OwnedPartition, offset: i64, is_first: bool) {
    if is_first {
        tracing::warn!(
            group,
            topic = %owned.topic,
            partition = owned.partition,
            offset,
            "commit metadata has no room for all records settled behind slow ones; the rest is handled again after a restart or a rebalance, possibly after later records of its key"
        );
    }
    metrics::counter!(
        Metric::CommitsCut.name(),
        "group" => group.to_owned(),
        "topic" => owned.topic.to_string()
    )
    .increment(1);
}

/// Logs that the positions after a log reset are not committed.
pub(super) fn reset_not_committed(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        "the positions of partitions after a log reset are not committed; retrying"
    );
}

/// Logs handlers that have been running for too long. `longest` is the longest running one.
pub(super) fn handlers_stuck(
    group: &str,
    (record, running_for): (&Record, Duration),
    handlers: usize,
    partitions: usize,
) {
    tracing::warn!(
        group,
        record = ?record,
        running_for_s = running_for.as_secs(),
        handlers,
        partitions,
        "a handler has been running for long; its key waits, and its partition cannot be committed past it; handler_timeout would end it"
    );
}

/// Logs workers whose threads a handler blocks.
pub(super) fn workers_blocked(group: &str, workers: usize) {
    tracing::warn!(
        group,
        workers,
        "workers do not answer: a handler blocks their threads; move blocking work into spawn_blocking"
    );
}
