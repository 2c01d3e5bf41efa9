//! What the commands of operators log: one function for each fact.

use crate::consumer::commit::TopicPartition;
use crate::consumer::poll::operator::acknowledgements::partition_names;
use crate::kafka::KafkaError;
use crate::kafka::reader::LogRecord;
use std::fmt::Display;
use std::num::NonZeroU32;

/// The control topic cannot be read at the start for lack of a permission.
pub(super) fn join_delayed(group: &str, reason: &str) {
    tracing::warn!(group, reason, "the member waits before it joins");
}

/// An entry of the control topic cannot be read or applied.
pub(super) fn entry_ignored(record: &LogRecord, reason: &dyn Display) {
    tracing::warn!(
        topic = %record.topic,
        offset = record.offset,
        %reason,
        "an entry of the control topic is ignored"
    );
}

/// The control topic returned an error that was not logged before.
pub(super) fn control_topic_unreadable(group: &str, error: &KafkaError) {
    tracing::warn!(group, %error, "the control topic cannot be read: commands wait");
}

/// Partitions are being paused.
pub(super) fn partitions_paused(group: &str, partitions: &[TopicPartition]) {
    tracing::warn!(
        group,
        partitions = %partition_names(partitions),
        "partitions are paused by an operator"
    );
}

/// Partitions are read again.
pub(super) fn partitions_resumed(group: &str, partitions: &[TopicPartition]) {
    tracing::warn!(
        group,
        partitions = %partition_names(partitions),
        "partitions are resumed"
    );
}

/// The rate limit was set, changed or removed.
pub(super) fn rate_set(group: &str, rate: Option<NonZeroU32>) {
    tracing::warn!(
        group,
        records_per_second = rate.map_or(0, NonZeroU32::get),
        "an operator set the rate; 0 means no limit"
    );
}

/// The group assigned a member id.
pub(super) fn member_id_assigned(
    group: &str,
    member_id: &str,
    client_id: &str,
    instance_id: Option<&str>,
) {
    tracing::info!(
        group,
        member_id,
        client_id,
        instance_id,
        "member of the group"
    );
}
