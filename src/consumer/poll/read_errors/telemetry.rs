//! What unreadable batches log: one function for each fact.

use crate::kafka::{KafkaError, UnreadableBatch};
use rdkafka::error::KafkaError as ClientError;
use std::io;
use std::ops::Range;

/// A batch that cannot be read blocks its partition.
pub(super) fn batch_blocks(group: &str, batch: &UnreadableBatch) {
    tracing::error!(
        group,
        topic = batch.topic,
        partition = batch.partition,
        offset = batch.offset,
        cause = batch.cause,
        "a batch cannot be read: its partition is blocked, and the batch is read again at an interval"
    );
}

/// A batch that blocked its partition was read.
pub(super) fn batch_readable(group: &str, batch: &UnreadableBatch) {
    tracing::info!(
        group,
        topic = batch.topic,
        partition = batch.partition,
        offset = batch.offset,
        "the batch can be read again"
    );
}

/// An operator's command skipped a batch.
pub(super) fn batch_skipped(group: &str, batch: &UnreadableBatch, range: &Range<i64>) {
    tracing::error!(
        group,
        topic = batch.topic,
        partition = batch.partition,
        first = range.start,
        last = range.end - 1,
        cause = batch.cause,
        "an operator skipped a batch that cannot be read; its records are not handled"
    );
}

/// The thread that looks up the extent of a batch cannot be started.
pub(super) fn extent_lookup_not_started(group: &str, error: &io::Error) {
    tracing::warn!(group, %error, "no thread to look up the extent of an unreadable batch");
}

/// The lookup of the extent of a batch failed.
pub(super) fn extent_unknown(group: &str, error: &KafkaError) {
    tracing::warn!(group, %error, "the extent of an unreadable batch is not known yet");
}

/// A blocked partition cannot be sought.
pub(super) fn seek_failed(group: &str, batch: &UnreadableBatch, offset: i64, error: &ClientError) {
    tracing::warn!(
        group,
        topic = batch.topic,
        partition = batch.partition,
        offset,
        %error,
        "the seek of a partition that cannot be read failed; retrying"
    );
}
