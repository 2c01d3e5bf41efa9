//! Restores truncated dead letters, and those without headers, from their original records. An
//! original exists until its topic deletes it.
//!
//! The record at the named offset is accepted only if it is the original by key, value or time: the
//! topic may have been deleted and recreated since.

use super::DeadLetterRecord;
use super::record::{Lookup, look_up};
use crate::Cluster;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::RecordPosition;
use evenkeel::recovery::restored;
use tokio_util::sync::CancellationToken;

/// A dead letter with the content of its original, if that still exists.
///
/// Exhaustive on purpose: who forgets the lost content would replay a record without its value.
#[derive(Debug)]
pub enum Restored {
    /// Complete, or as complete as possible: if the original of a dead letter with key and value is
    /// gone, the record's headers are missing.
    Whole(DeadLetterRecord),
    /// The content is lost, for this reason, in words. A later attempt finds no more, unless the
    /// reason is a topic that will be restored.
    Gone(DeadLetterRecord, String),
    /// The operation was cancelled first.
    Stopped,
}

/// Restores key, value and headers of an incomplete dead letter from its original. Returns any
/// other unchanged. Blocks the calling thread.
///
/// # Errors
/// If a request to the cluster fails. A missing topic or partition of the original is no error.
pub fn restore(
    cluster: &Cluster,
    dead_letter: DeadLetterRecord,
    stop: &CancellationToken,
) -> Result<Restored, KafkaError> {
    if !dead_letter.is_incomplete() {
        return Ok(Restored::Whole(dead_letter));
    }
    let is_empty = dead_letter.is_empty_without_original();
    let failure = &dead_letter.failure;
    let (Some(topic), Some(partition), Some(offset)) =
        (failure.topic.clone(), failure.partition, failure.offset)
    else {
        if !is_empty {
            return Ok(Restored::Whole(dead_letter));
        }
        let why = "its headers do not name the position of its original".to_owned();
        return Ok(Restored::Gone(dead_letter, why));
    };
    let at = RecordPosition {
        topic,
        partition,
        offset,
    };
    let gone = |dead_letter, why: &str| {
        if !is_empty {
            return Ok(Restored::Whole(dead_letter));
        }
        let why = format!("its original at {at} is gone: {why}; its content cannot be replayed");
        Ok(Restored::Gone(dead_letter, why))
    };
    let original = match look_up(cluster, &at, stop) {
        Ok(Lookup::Record(original)) => *original,
        Ok(Lookup::Stopped) => return Ok(Restored::Stopped),
        Ok(Lookup::Nothing) => return gone(dead_letter, "the topic has deleted it"),
        Err(error @ (KafkaError::UnknownTopic { .. } | KafkaError::UnknownPartition { .. })) => {
            return gone(dead_letter, &error.to_string());
        }
        Err(error) => return Err(error),
    };
    match restored(dead_letter.record.clone(), original) {
        Ok(record) => Ok(Restored::Whole(DeadLetterRecord::new(record))),
        Err(why) => gone(dead_letter, &why.to_string()),
    }
}
