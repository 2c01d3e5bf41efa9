//! What rebalances log and count: one function for each fact.

use crate::telemetry::Metric;
use rdkafka::TopicPartitionList;
use rdkafka::error::KafkaError;
use std::time::Duration;

/// The client could not carry out a rebalance.
pub(super) fn rebalance_failed(group: &str, error: &dyn std::fmt::Display) {
    tracing::error!(group, %error, "the rebalance failed");
}

/// Counts a rebalance by its kind: `assigned`, `revoked` or `lost`.
pub(super) fn rebalanced(group: &str, kind: &'static str) {
    metrics::counter!(
        Metric::Rebalances.name(),
        "group" => group.to_owned(),
        "kind" => kind
    )
    .increment(1);
}

/// The counter of the records received from a topic.
pub(super) fn received_counter(group: &str, topic: &str) -> metrics::Counter {
    metrics::counter!(
        Metric::Received.name(),
        "group" => group.to_owned(),
        "topic" => topic.to_owned()
    )
}

/// Partitions were assigned.
pub(super) fn partitions_assigned(group: &str, list: &TopicPartitionList) {
    tracing::info!(group, partitions = %partition_names(list), "partitions assigned");
}

/// The queue of an assigned partition cannot be forwarded.
pub(super) fn queue_not_forwarded(group: &str, topic: &str, partition: i32, error: &KafkaError) {
    tracing::error!(
        group,
        topic,
        partition,
        %error,
        "the partition's queue cannot be forwarded"
    );
}

/// The start of an assigned partition cannot be set.
pub(super) fn start_left_to_client(group: &str, topic: &str, partition: i32, error: &KafkaError) {
    tracing::debug!(
        group,
        topic,
        partition,
        %error,
        "the client looks up the offset itself"
    );
}

/// The lookup of committed offsets failed for good.
pub(super) fn committed_offsets_unknown(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        "the committed offsets cannot be read; records settled above them are handled again"
    );
}

/// Partitions were lost during a stop.
pub(super) fn lost_before_last_commit(group: &str) {
    tracing::warn!(
        group,
        "the group took the partitions away before the stop committed all settled offsets; some records will be redelivered"
    );
}

/// Handlers still ran, or offsets were not committed, at the deadline of a revoke.
pub(super) fn revoke_timed_out(group: &str, drained: bool, committed: bool) {
    tracing::warn!(
        group,
        drained,
        committed,
        "revoke timed out: some records will be redelivered"
    );
}

/// Partitions were revoked.
pub(super) fn partitions_revoked(
    group: &str,
    list: &TopicPartitionList,
    lost: bool,
    took: Duration,
) {
    tracing::info!(
        group,
        partitions = %partition_names(list),
        lost,
        took_ms = took.as_millis() as u64,
        "partitions revoked"
    );
}

/// The partitions for a log line.
fn partition_names(list: &TopicPartitionList) -> String {
    let names: Vec<String> = list
        .elements()
        .iter()
        .map(|element| format!("{}/{}", element.topic(), element.partition()))
        .collect();
    names.join(" ")
}
