//! Writes the entries of a retry topic.
//!
//! Every entry of a record goes to the partition of the record's own number and has its key. The
//! order of a key is thus the order of one partition, and the member that owns the source partition
//! owns the retry partition.

use super::entry::{Owner, Reason, RetryState};
use super::entry_headers::{
    ATTEMPTS, CLASS, KIND, MESSAGE, NOT_BEFORE, OF, OFFSET, ROUNDS, SINCE, TIMESTAMP,
    is_parking_header, retry_topic,
};
use crate::event::{Headers, OutgoingRecord, Record};
use crate::recovery::dead_letter::FIRST_FAILURE;
use bytes::Bytes;
use jiff::Timestamp;

/// The most bytes of a failure's message.
const MESSAGE_BYTES_MAX: usize = 512;

/// Creates a parked record, in the partition of the same number. Without a reason it waits behind
/// another one of its key. Key, value and headers are those of the record; parking headers that it
/// brings along are replaced, so that none can be forged.
pub(crate) fn parked(
    group: &str,
    record: &Record,
    wait: RetryState,
    reason: Option<Reason<'_>>,
    now_ms: i64,
) -> OutgoingRecord {
    let mut headers: Headers = record
        .headers()
        .filter(|(name, _)| !is_parking_header(name))
        .collect();
    headers.push(KIND, Some(b"record"));
    push_origin(&mut headers, record);
    push_wait(&mut headers, wait, now_ms);
    if let Some(reason) = reason {
        push_reason(&mut headers, reason);
        // This header is not one of ours: it stays with the record up to its dead letter, if there
        // is one.
        if headers.last(FIRST_FAILURE).is_none()
            && let Ok(now) = Timestamp::from_millisecond(now_ms)
        {
            headers.push(FIRST_FAILURE, Some(now.to_string().as_bytes()));
        }
    }
    OutgoingRecord {
        value: record.value().map(Bytes::copy_from_slice),
        ..note(group, record, headers)
    }
}

/// Creates the note that the parked record at `retry_offset` of the retry topic failed again. The
/// record itself stays where it is: a copy behind the others of its key would be overtaken.
pub(crate) fn failed_again(
    group: &str,
    record: &Record,
    retry_offset: i64,
    wait: RetryState,
    reason: Reason<'_>,
    now_ms: i64,
) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push(KIND, Some(b"failed"));
    headers.push(OF, Some(retry_offset.to_string().as_bytes()));
    push_origin(&mut headers, record);
    push_wait(&mut headers, wait, now_ms);
    push_reason(&mut headers, reason);
    note(group, record, headers)
}

/// Creates the note that `record` is a dead letter, and that its key waits for its replay. Written
/// after the dead letter is acknowledged, and before the record is settled.
pub(crate) fn held(group: &str, record: &Record, now_ms: i64) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push(KIND, Some(b"held"));
    push_origin(&mut headers, record);
    push_wait(&mut headers, RetryState::default(), now_ms);
    note(group, record, headers)
}

/// Adds owner and source offset to the replay of a dead letter that is written to a retry topic. By
/// the offset the replay finds the place that was held for it.
pub(in crate::recovery) fn push_replay_origin(
    headers: &mut Headers,
    owner: Owner<'_>,
    offset: Option<i64>,
    timestamp_ms: Option<i64>,
) {
    headers.push(KIND, Some(b"replay"));
    owner.push(headers);
    push_place(headers, offset, timestamp_ms);
}

/// Adds the position and the time of the original record, as far as they are known.
pub(super) fn push_place(headers: &mut Headers, offset: Option<i64>, timestamp_ms: Option<i64>) {
    if let Some(offset) = offset {
        headers.push(OFFSET, Some(offset.to_string().as_bytes()));
    }
    if let Some(timestamp_ms) = timestamp_ms {
        headers.push(TIMESTAMP, Some(timestamp_ms.to_string().as_bytes()));
    }
}

/// An entry about `record` without its value, with these headers and its owner.
pub(super) fn note(group: &str, record: &Record, mut headers: Headers) -> OutgoingRecord {
    let topic = record.topic();
    Owner { group, topic }.push(&mut headers);
    OutgoingRecord {
        topic: retry_topic(group, record.topic()),
        partition: Some(record.partition()),
        key: record.key().map(Bytes::copy_from_slice),
        value: None,
        headers,
        // The client sets the time of writing: retention counts from a record's timestamp.
        timestamp_ms: None,
    }
}

fn push_origin(headers: &mut Headers, record: &Record) {
    push_place(headers, Some(record.offset()), record.timestamp_ms());
}

/// Adds the retry state. Zeros are left out: they are what a reader assumes.
fn push_wait(headers: &mut Headers, wait: RetryState, now_ms: i64) {
    if wait.rounds > 0 {
        headers.push(ROUNDS, Some(wait.rounds.to_string().as_bytes()));
    }
    if wait.attempts > 0 {
        headers.push(ATTEMPTS, Some(wait.attempts.to_string().as_bytes()));
    }
    if wait.not_before_ms > 0 {
        headers.push(NOT_BEFORE, Some(wait.not_before_ms.to_string().as_bytes()));
    }
    headers.push(SINCE, Some(now_ms.to_string().as_bytes()));
}

fn push_reason(headers: &mut Headers, reason: Reason<'_>) {
    headers.push(CLASS, Some(reason.class.as_str().as_bytes()));
    let message = &reason.message[..reason.message.floor_char_boundary(MESSAGE_BYTES_MAX)];
    headers.push(MESSAGE, Some(message.as_bytes()));
}
