//! What stands in a retry topic: parked records, and notes about them.
//!
//! Pure. Owns the names and forms of their headers. A parked record has key, value and headers of the record that failed,
//! or that waits behind one; what is known about the wait is in headers of our own, which the record loses when it is
//! handled. Total: headers are anybody's bytes. A number that makes no sense never makes a record wait for ever, be tried
//! for ever or be lost: what is unreadable counts as tried often enough, and a time counts only up to the policy's
//! longest wait.

pub(crate) mod repetition;
#[cfg(test)]
mod tests;

use super::replay::FIRST_FAILURE;
use crate::event::{Headers, HeadersIter, OutgoingRecord, Record, RecordBatchBuilder};
use crate::handler::Class;
use bytes::Bytes;
use jiff::Timestamp;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// What the names of our headers begin with.
const PREFIX: &[u8] = b"evenkeel.parked.";
const GROUP: &str = "evenkeel.parked.group";
const TOPIC: &str = "evenkeel.parked.topic";
const KIND: &str = "evenkeel.parked.kind";
const OFFSET: &str = "evenkeel.parked.offset";
const TIMESTAMP: &str = "evenkeel.parked.timestamp";
const ROUNDS: &str = "evenkeel.parked.rounds";
const ATTEMPTS: &str = "evenkeel.parked.attempts";
const NOT_BEFORE: &str = "evenkeel.parked.not-before";
const SINCE: &str = "evenkeel.parked.since";
const CLASS: &str = "evenkeel.parked.class";
const MESSAGE: &str = "evenkeel.parked.message";
const OF: &str = "evenkeel.parked.of";

/// Bytes of a failure's message at most.
const MESSAGE_BYTES_MAX: usize = 512;

/// The topic of what `group` parks of `topic`. It needs as many partitions.
///
/// Names run together: `payments.eu` and `orders` have the same one as `payments` and `eu.orders`. So each entry says whose it
/// is ([`Owner`]).
pub fn retry_topic(group: &str, topic: &str) -> String {
    format!("retry.{group}.{topic}")
}

/// What a record of a retry topic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A record that waits: for its next attempt, or behind one of its key.
    Parked {
        /// Its offset in the topic it came from; none where that cannot be told.
        origin: Option<i64>,
        /// What is known of its attempts.
        wait: Wait,
        /// Whether it is a dead letter's replay, which takes the place that was held for it.
        is_replay: bool,
    },
    /// A parked record failed again, and waits again.
    Failed {
        /// Its offset in the retry topic.
        of: i64,
        /// What is known of its attempts now.
        wait: Wait,
    },
    /// The record of this offset in the source topic is a dead letter, and its key's later records wait for its replay.
    Held {
        /// Its offset in the topic it came from.
        origin: i64,
    },
    /// Nothing that can be understood, or nothing about what waits: it is let go.
    Unknown,
    /// Another group's, or of another topic: it is none of this reader's business.
    Foreign,
}

/// Whose the entries of a retry topic are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The group that parks.
    pub group: &'a str,
    /// The topic of what it parks.
    pub topic: &'a str,
}

impl Owner<'_> {
    /// Whether an entry is this group's, of this topic. One that does not say whose it is belongs to whoever reads it: older
    /// versions wrote them so, and people do.
    pub fn owns(self, headers: HeadersIter<'_>) -> bool {
        let says = |name, own: &str| {
            let said = headers.clone().last_value(name);
            said.is_none_or(|said| said == own.as_bytes())
        };
        says(GROUP, self.group) && says(TOPIC, self.topic)
    }

    /// The group and the topic that an entry says it is of, for people.
    pub(crate) fn said(headers: &Headers) -> (String, String) {
        let text = |name| {
            let said = headers.last(name).unwrap_or_default();
            String::from_utf8_lossy(said).into_owned()
        };
        (text(GROUP), text(TOPIC))
    }

    pub(super) fn push(self, headers: &mut Headers) {
        headers.push(GROUP, Some(self.group.as_bytes()));
        headers.push(TOPIC, Some(self.topic.as_bytes()));
    }
}

/// A record's wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Wait {
    /// How often it was parked after a failure; 0 for a record that waits behind another.
    pub rounds: u32,
    /// How often its handler was tried.
    pub attempts: u32,
    /// When it may be tried again, in milliseconds since the epoch; 0 for at once.
    pub not_before_ms: i64,
}

/// Why a record waits, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Why {
    /// The last failure's class; none for a record that waits behind another.
    pub class: Option<String>,
    /// What happened.
    pub message: Option<String>,
    /// Since when it waits, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
}

/// A failure that makes a record wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reason<'a> {
    pub(crate) class: Class,
    pub(crate) message: &'a str,
}

impl Entry {
    /// Reads the headers of a record of a retry topic, for the group and topic that it is read for.
    pub fn read(headers: HeadersIter<'_>, owner: Owner<'_>) -> Self {
        if !owner.owns(headers.clone()) {
            return Self::Foreign;
        }
        let values = Values(headers);
        let origin = values.number(OFFSET);
        match values.0.clone().last_value(KIND) {
            Some(b"failed") => match values.number(OF) {
                Some(of) => Self::Failed {
                    of,
                    wait: values.wait(),
                },
                None => Self::Unknown,
            },
            Some(b"held") => origin.map_or(Self::Unknown, |origin| Self::Held { origin }),
            Some(repetition::ANSWER) => Self::Unknown,
            // Whatever else was written there is a record that somebody wants handled.
            _ => Self::Parked {
                origin,
                wait: values.wait(),
                is_replay: values.0.clone().last_value(KIND) == Some(b"replay"),
            },
        }
    }
}

impl Why {
    /// Reads the headers of a parked record or of a note.
    pub fn read(headers: HeadersIter<'_>) -> Self {
        let values = Values(headers);
        let text = |name| {
            let bytes = values.0.clone().last_value(name)?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        Self {
            class: text(CLASS),
            message: text(MESSAGE),
            since_ms: values.number(SINCE),
        }
    }
}

struct Values<'a>(HeadersIter<'a>);

impl Values<'_> {
    /// A number that is none of the negative ones; none for anything else.
    fn number(&self, name: &str) -> Option<i64> {
        let text = std::str::from_utf8(self.0.clone().last_value(name)?).ok()?;
        text.parse().ok().filter(|number: &i64| *number >= 0)
    }

    /// A count: 0 where there is none, and as many as there can be where it is unreadable.
    fn count(&self, name: &str) -> u32 {
        let is_there = self.0.clone().any(|(header, _)| header == name.as_bytes());
        match self.number(name) {
            Some(number) => u32::try_from(number).unwrap_or(u32::MAX),
            None if is_there => u32::MAX,
            None => 0,
        }
    }

    fn wait(&self) -> Wait {
        Wait {
            rounds: self.count(ROUNDS),
            attempts: self.count(ATTEMPTS),
            not_before_ms: self.number(NOT_BEFORE).unwrap_or(0),
        }
    }
}

/// Whether a header is one that only a retry topic has.
pub(crate) fn is_parking_header(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// A record as it is parked: to the partition of the same number. Without a reason it waits behind another of its key.
pub(crate) fn parked(
    group: &str,
    record: &Record,
    wait: Wait,
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
        // Not one of ours: it stays with the record until its dead letter, should there be one.
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

/// The note that the parked record at offset `of` of the retry topic failed again.
pub(crate) fn failed_again(
    group: &str,
    record: &Record,
    of: i64,
    wait: Wait,
    reason: Reason<'_>,
    now_ms: i64,
) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push(KIND, Some(b"failed"));
    headers.push(OF, Some(of.to_string().as_bytes()));
    push_origin(&mut headers, record);
    push_wait(&mut headers, wait, now_ms);
    push_reason(&mut headers, reason);
    note(group, record, headers)
}

/// The note that `record` is a dead letter, and that its key waits for its replay.
pub(crate) fn held(group: &str, record: &Record, now_ms: i64) -> OutgoingRecord {
    let mut headers = Headers::new();
    headers.push(KIND, Some(b"held"));
    push_origin(&mut headers, record);
    push_wait(&mut headers, Wait::default(), now_ms);
    note(group, record, headers)
}

/// Adds to a dead letter's replay, which goes to a retry topic, whose it is and where the record once stood.
pub(super) fn push_replay_origin(
    headers: &mut Headers,
    owner: Owner<'_>,
    offset: Option<i64>,
    timestamp_ms: Option<i64>,
) {
    headers.push(KIND, Some(b"replay"));
    owner.push(headers);
    push_place(headers, offset, timestamp_ms);
}

fn push_place(headers: &mut Headers, offset: Option<i64>, timestamp_ms: Option<i64>) {
    if let Some(offset) = offset {
        headers.push(OFFSET, Some(offset.to_string().as_bytes()));
    }
    if let Some(timestamp_ms) = timestamp_ms {
        headers.push(TIMESTAMP, Some(timestamp_ms.to_string().as_bytes()));
    }
}

fn note(group: &str, record: &Record, mut headers: Headers) -> OutgoingRecord {
    let topic = record.topic();
    Owner { group, topic }.push(&mut headers);
    OutgoingRecord {
        topic: retry_topic(group, record.topic()),
        partition: Some(record.partition()),
        key: record.key().map(Bytes::copy_from_slice),
        value: None,
        headers,
        // The time of writing: retention counts from a record's timestamp.
        timestamp_ms: None,
    }
}

fn push_origin(headers: &mut Headers, record: &Record) {
    push_place(headers, Some(record.offset()), record.timestamp_ms());
}

fn push_wait(headers: &mut Headers, wait: Wait, now_ms: i64) {
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

/// A record of a retry topic as it stands on the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
}

/// The record that was parked, as it was read from `topic`. Where its place there cannot be told it stands at the offset
/// that it has in the retry topic.
pub(crate) fn restored<'h>(
    topic: &Arc<str>,
    stored: Stored<'_>,
    headers: impl IntoIterator<Item = (&'h [u8], Option<&'h [u8]>)>,
    budget: Option<Arc<AtomicUsize>>,
) -> Option<Record> {
    let headers: Headers = headers.into_iter().collect();
    let values = Values(headers.iter());
    let origin = values.number(OFFSET).unwrap_or(stored.offset);
    // A record that was parked without a timestamp has none; one that somebody else wrote has its own.
    let was_parked = values.0.clone().last_value(KIND).is_some();
    let own_ms = if was_parked { -1 } else { stored.timestamp_ms };
    let timestamp_ms = values.number(TIMESTAMP).unwrap_or(own_ms);
    let mut builder = RecordBatchBuilder::new();
    let source = builder.source(Arc::clone(topic), stored.partition);
    let own = headers.iter().filter(|(name, _)| !is_parking_header(name));
    builder.push(source, origin, timestamp_ms, stored.key, stored.value, own);
    builder.build(budget).record(0)
}
