//! Log lines and counters of the poll thread that have a function of their own.

use crate::consumer::report::ConsumerError;
use crate::consumer::shared::Shared;
use crate::consumer::state::assignments::PositionLoss;
use crate::telemetry::Metric;
use rdkafka::error::KafkaError;

impl Shared {
    /// Logs, counts and notes in the health that a position was lost and where reading continues.
    pub(crate) fn position_lost(
        &self,
        (topic, partition): (&str, i32),
        lost: PositionLoss,
        from: Option<i64>,
        to: Option<i64>,
    ) {
        let (group, reason) = (&self.group, lost.reason());
        tracing::error!(
            group,
            topic,
            partition,
            reason,
            from,
            to,
            "{}",
            lost.happened()
        );
        metrics::counter!(
            Metric::PositionsLost.name(),
            "group" => group.clone(),
            "topic" => topic.to_owned(),
            "reason" => reason
        )
        .increment(1);
        self.readiness.position_lost(topic, partition, reason);
    }
}

/// A partition's committed offset is not in its log, and no reset is allowed.
pub(super) fn offset_out_of_range(group: &str, topic: &str, partition: i32, reason: &str) {
    tracing::error!(group, topic, partition, "{reason}");
}

/// A partition returned an error that was not reported before.
pub(super) fn partition_unreadable(group: &str, topic: &str, partition: i32, error: &str) {
    tracing::error!(group, topic, partition, %error, "the partition cannot be read");
}

/// The drain of a stop reached its deadline.
pub(super) fn stopped_with_running_handlers(group: &str, in_flight: usize) {
    tracing::warn!(
        group,
        in_flight,
        "stopped before every running handler was done; their records are redelivered"
    );
}

/// The client failed during the drain of a stop.
pub(super) fn drain_failed(group: &str, error: &ConsumerError) {
    tracing::warn!(group, %error, "the client failed while handlers were drained");
}

/// The queue of a partition that is being paused is still forwarded.
pub(super) fn queue_still_forwarded(group: &str, topic: &str, partition: i32, error: &KafkaError) {
    tracing::warn!(
        group,
        %topic,
        partition,
        %error,
        "the paused partition's queue is still forwarded; its records are discarded"
    );
}

/// The positions of paused partitions are unknown, or a seek to them failed.
pub(super) fn resume_failed(group: &str, error: &KafkaError) {
    tracing::warn!(group, %error, "paused partitions cannot be resumed yet; retrying");
}

/// The lookup for a resume returned no committed offset for a partition that has been read.
pub(super) fn committed_offset_missing(group: &str, topic: &str, partition: i32) {
    tracing::warn!(
        group,
        %topic,
        partition,
        "no committed offset returned for the paused partition; retrying"
    );
}

/// The first offset of a partition with a log reset cannot be looked up.
pub(super) fn beginning_unknown(group: &str, topic: &str, partition: i32, error: &KafkaError) {
    tracing::warn!(
        group,
        topic,
        partition,
        %error,
        "the first offset of the partition is unknown; the lookup is repeated"
    );
}

/// A topic was recreated with fewer partitions; an assigned one is not among them.
pub(super) fn partition_absent(group: &str, topic: &str, partition: i32, partitions: usize) {
    tracing::warn!(
        group,
        topic,
        partition,
        partitions,
        "the topic has fewer partitions than before and no longer has this one; if it is created again, it is handled from its first record"
    );
}
