//! The log lines about retry topics, their partitions and their entries.

use crate::consumer::retry_reader::reader::gap_check::Gap;
use crate::consumer::retry_reader::reader::read_errors::ReadError;
use crate::kafka::KafkaError;
use rdkafka::error::KafkaError as ClientError;

/// A retry partition that a line is about.
#[derive(Clone, Copy)]
pub(super) struct LoggedPartition<'a> {
    pub(super) group: &'a str,
    /// The retry topic.
    pub(super) topic: &'a str,
    pub(super) partition: i32,
}

/// Logs that revoked retry partitions cannot be unassigned.
pub(super) fn unassign_failed(group: &str, error: &ClientError) {
    tracing::warn!(group, %error, "retry partitions cannot be unassigned");
}

/// Logs a gap that stayed after its offsets were fetched again.
pub(super) fn gap_stays(of: LoggedPartition<'_>, gap: &Gap) {
    tracing::error!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        offset = gap.missing,
        "the retry partition has a gap: records were deleted from its middle"
    );
}

/// Logs that the offsets of a gap cannot be fetched again.
pub(super) fn gap_seek_failed(of: LoggedPartition<'_>, error: &ClientError) {
    tracing::warn!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        %error,
        "the retry partition cannot be read again from the start of a gap"
    );
}

/// Logs a read error.
pub(super) fn read_failed(of: LoggedPartition<'_>, error: &ClientError) {
    tracing::error!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        %error,
        "the retry partition cannot be read"
    );
}

/// Logs that the brokers were not asked whether the log was truncated.
pub(super) fn truncation_check_failed(of: LoggedPartition<'_>, error: &ClientError) {
    tracing::warn!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        %error,
        "the check whether the retry partition was truncated failed"
    );
}

/// Logs the first entry of another group, and the group and the source topic that wrote it.
pub(super) fn foreign_entry(
    of: LoggedPartition<'_>,
    offset: i64,
    other_group: &str,
    other_topic: &str,
) {
    tracing::warn!(
        group = of.group,
        retry_topic = %of.topic,
        partition = of.partition,
        offset,
        other_group,
        other_topic,
        "another group uses the same retry topic, because their names combine to the same one; each group handles its own entries, and settled ones are no longer deleted; rename one of the groups"
    );
}

/// Logs that a missing retry topic was created.
pub(super) fn topic_appeared(of: LoggedPartition<'_>) {
    tracing::warn!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        "the retry topic was created; the partition is opened again, so that no record overtakes parked ones"
    );
}

/// Logs that a retry topic does not exist and cannot be created.
pub(super) fn topic_absent(of: LoggedPartition<'_>) {
    tracing::warn!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        "the retry topic does not exist and cannot be created: until it exists no record can be parked, and records that fail too often are dead-lettered"
    );
}

/// Logs that retry topics cannot be created or extended.
pub(super) fn topics_not_created(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        "retry topics cannot be created or given more partitions; create them"
    );
}

/// Logs a failed lookup of these retry partitions. Their source partitions wait.
///
/// A topic that was just created is not known to all brokers yet, which is no trouble.
pub(super) fn lookup_failed(group: &str, topic: &str, partitions: &[i32], error: &ReadError) {
    if *error == ReadError::InDoubt {
        tracing::info!(
            group,
            topic,
            ?partitions,
            "the brokers do not all know the retry topic yet; its partitions wait, and the lookup is retried"
        );
        return;
    }
    tracing::warn!(
        group,
        topic,
        ?partitions,
        trouble = ?error,
        "the parked records are unknown; the partitions wait, and the lookup is retried"
    );
}

/// Logs unsettled entries that were deleted from the beginning of the partition.
pub(super) fn entries_lost(of: LoggedPartition<'_>, entries: u64, first: i64) {
    tracing::error!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        entries,
        first,
        "entries of the retry partition were deleted before they were settled; the records parked there are lost"
    );
}

/// Logs a due record that is no longer in the log.
pub(super) fn record_lost(of: LoggedPartition<'_>, offset: i64) {
    tracing::error!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        offset,
        "a parked record is no longer in the retry topic: it was deleted there and is lost"
    );
}

/// Logs that due records cannot be fetched.
pub(super) fn fetch_failed(group: &str, error: &ClientError) {
    tracing::warn!(
        group,
        %error,
        "parked records that are due cannot be fetched; they are fetched again"
    );
}

/// Logs a retry topic that was deleted with parked records in it.
pub(super) fn topic_lost(group: &str, topic: &str, keys: usize, records: usize) {
    tracing::error!(
        group,
        topic,
        keys,
        records,
        "a retry topic was deleted while records were parked in it: they are lost; evenkeel audit names them"
    );
}

/// Logs that an operator accepted the loss of entries.
pub(super) fn loss_accepted(of: LoggedPartition<'_>, entries: u64) {
    tracing::warn!(
        group = of.group,
        topic = %of.topic,
        partition = of.partition,
        entries,
        "an operator accepted the loss of entries of the retry partition"
    );
}
