//! Dead letters: the original record byte for byte, with the reason in its headers.
//!
//! Owns the dead-letter topic's name and the headers that are added. Sends nothing: who writes it must have the
//! brokers' acknowledgement before the source offset counts as settled.
//!
//! The names under `__dlq.errors.` are Kafka's own (KIP-1191) with Kafka's meaning; what Kafka has no name for goes under
//! `evenkeel.dlq.`. All values are UTF-8 text. A record that comes from a dead letter, because it was replayed or because
//! somebody consumes the dead-letter topic, already carries these headers: they are replaced, so that they always tell
//! about the latest failure and do not grow with each trip. Every other header stays where it was, those of a replay too
//! (`replay.rs`): how often a record was replayed and when it failed first must survive its next failure.
//!
//! A record that the dead-letter topic has no room for becomes a [`Form::Reference`]: what it was, without what it held.

use super::replay::{EDITED, FIRST_FAILURE, REPLAY_COUNT, REPLAY_OF, REPLAYED_AT, REPLAYED_BY};
use crate::control::Command;
use crate::event::{Headers, OutgoingRecord, Record};
use crate::handler::{Class, DeadReason};
use bytes::Bytes;
use jiff::Timestamp;

/// Bytes of the failure's message at most. Brokers bound the whole record, and the payload needs the room.
const MESSAGE_BYTES_MAX: usize = 1024;

/// Bytes of the original's own headers that a reference keeps at most: enough for an event's type, id and trace.
const REFERENCE_HEADERS_BYTES_MAX: usize = 4096;

pub(crate) const TOPIC: &str = "__dlq.errors.topic";
pub(crate) const PARTITION: &str = "__dlq.errors.partition";
pub(crate) const OFFSET: &str = "__dlq.errors.offset";
pub(crate) const GROUP: &str = "__dlq.errors.group";
pub(crate) const DELIVERY_COUNT: &str = "__dlq.errors.delivery.count";
pub(crate) const MESSAGE: &str = "__dlq.errors.message";
pub(crate) const CLASS: &str = "evenkeel.dlq.error.class";
pub(crate) const STAGE: &str = "evenkeel.dlq.error.stage";
pub(crate) const TIMESTAMP: &str = "evenkeel.dlq.error.timestamp";
pub(crate) const SERVICE: &str = "evenkeel.dlq.error.service";
pub(crate) const INSTANCE: &str = "evenkeel.dlq.error.instance";
pub(crate) const RECORD_TIMESTAMP: &str = "evenkeel.dlq.record.timestamp";
pub(crate) const REFERENCE: &str = "evenkeel.dlq.reference";
pub(crate) const SKIPPED_BY: &str = "evenkeel.dlq.skipped-by";
pub(crate) const SKIPPED_WHY: &str = "evenkeel.dlq.skipped-why";
pub(crate) const SKIP_COMMAND: &str = "evenkeel.dlq.skip-command";

/// What the letter of a record that an operator had skipped adds.
const SKIP: &[&str] = &[SKIPPED_BY, SKIPPED_WHY, SKIP_COMMAND];

/// All headers that a dead letter adds and that replace older ones of their name.
const OURS: &[&str] = &[
    TOPIC,
    PARTITION,
    OFFSET,
    GROUP,
    DELIVERY_COUNT,
    MESSAGE,
    CLASS,
    STAGE,
    TIMESTAMP,
    SERVICE,
    INSTANCE,
    RECORD_TIMESTAMP,
    REFERENCE,
];

/// What a replay adds: short, and what the next replay goes on counting from.
const OF_REPLAYS: &[&str] = &[
    REPLAY_COUNT,
    REPLAY_OF,
    REPLAYED_BY,
    REPLAYED_AT,
    FIRST_FAILURE,
    EDITED,
];

/// Bytes of a replay's header at most in a reference: anybody may have written it.
const REPLAY_HEADER_BYTES_MAX: usize = 512;

/// Where a group's dead letters go.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeadLetterTopic {
    /// For each topic one of its own, `dlq.<group>.<topic>`, and there to the partition of the same number. The default.
    #[default]
    PerTopic,
    /// This one for all topics of the group, and there to the partition that the key picks. `evenkeel dlq` has to be told its
    /// name unless it begins with `dlq.`.
    One(String),
}

impl DeadLetterTopic {
    /// The topic of what `group` gives up of `topic`.
    ///
    /// One per topic needs as many partitions as `topic`. A group whose name has characters that no topic may have cannot
    /// have one: that is for the consumer to check before it starts.
    pub fn of(&self, group: &str, topic: &str) -> String {
        match self {
            Self::PerTopic => format!("dlq.{group}.{topic}"),
            Self::One(name) => name.clone(),
        }
    }

    fn partition(&self, record: &Record) -> Option<i32> {
        match self {
            Self::PerTopic => Some(record.partition()),
            Self::One(_) => None,
        }
    }
}

/// What is known about a failure beside the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    /// Where the letter goes.
    pub(crate) to: &'a DeadLetterTopic,
    /// The group that gives the record up.
    pub(crate) group: &'a str,
    /// The service in it, as its client id says.
    pub(crate) service: &'a str,
    /// The service's instance.
    pub(crate) instance: &'a str,
    /// Where and why it failed.
    pub(crate) reason: &'a DeadReason,
    /// The last error's class.
    pub(crate) class: Class,
    /// How often its handler was tried.
    pub(crate) attempts: u32,
    /// When its first attempt failed; none for one that was skipped before.
    pub(crate) first_failure: Option<Timestamp>,
    /// When it was given up.
    pub(crate) now: Timestamp,
    /// The command that had it skipped, if it did not fail.
    pub(crate) skip: Option<&'a Command>,
}

/// How much of a record its dead letter has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Key, value and headers as they are.
    Whole,
    /// Without the failure's message.
    Shortened,
    /// Without the value, and with the first few kilobytes of the headers.
    ///
    /// It says where the original stands on its own topic, which is where tools fetch it from for as long as it is kept there.
    Reference,
}

impl Form {
    /// From the one that is wanted to the one that still says what failed. Where even the last is too large, because the key
    /// is, nothing can be written: the topic has to be given a larger `max.message.bytes`, and until then the partition stands
    /// still.
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Shortened, Self::Reference];
}

/// The dead letter of a record.
///
/// It carries the time of writing, not the record's own: retention counts from a record's timestamp, and a dead letter
/// of an old record would be deleted before anybody has seen it. The record's own time is in a header.
pub(crate) fn dead_letter(record: &Record, failure: &Failure<'_>, form: Form) -> OutgoingRecord {
    let known_first = known_first_failure(record, failure.now);
    let mut headers = kept(record, known_first.is_some(), form);
    let mut add = |name, value: &str| headers.push(name, Some(value.as_bytes()));
    add(TOPIC, record.topic());
    add(PARTITION, &record.partition().to_string());
    add(OFFSET, &record.offset().to_string());
    add(GROUP, failure.group);
    add(DELIVERY_COUNT, &failure.attempts.to_string());
    let message = &failure.reason.message;
    let message_bytes_max = match form {
        Form::Shortened => 0,
        Form::Whole | Form::Reference => MESSAGE_BYTES_MAX,
    };
    add(
        MESSAGE,
        &message[..message.floor_char_boundary(message_bytes_max)],
    );
    add(CLASS, failure.class.as_str());
    add(STAGE, failure.reason.stage.as_str());
    add(TIMESTAMP, &failure.now.to_string());
    add(SERVICE, failure.service);
    add(INSTANCE, failure.instance);
    if let Some(timestamp_ms) = record.timestamp_ms() {
        add(RECORD_TIMESTAMP, &timestamp_ms.to_string());
    }
    if let (None, Some(first_failure)) = (known_first, failure.first_failure) {
        add(FIRST_FAILURE, &first_failure.to_string());
    }
    if let Some(command) = failure.skip {
        add(SKIPPED_BY, &command.by);
        add(SKIPPED_WHY, &command.why);
        add(SKIP_COMMAND, &command.id);
    }
    let value = match form {
        Form::Reference => {
            add(REFERENCE, "true");
            None
        }
        Form::Whole | Form::Shortened => record.value(),
    };
    OutgoingRecord {
        topic: failure.to.of(failure.group, record.topic()),
        partition: failure.to.partition(record),
        key: record.key().map(Bytes::copy_from_slice),
        value: value.map(Bytes::copy_from_slice),
        headers,
        timestamp_ms: None,
    }
}

/// The original's headers that its letter keeps, in order.
fn kept(record: &Record, keeps_first_failure: bool, form: Form) -> Headers {
    let mut room = match form {
        Form::Reference => REFERENCE_HEADERS_BYTES_MAX,
        Form::Whole | Form::Shortened => usize::MAX,
    };
    let mut headers = Headers::new();
    for (name, value) in record.headers() {
        let is = |known: &&str| known.as_bytes() == name;
        if OURS.iter().chain(SKIP).any(is) || (is(&FIRST_FAILURE) && !keeps_first_failure) {
            continue;
        }
        let bytes = name.len() + value.map_or(0, <[u8]>::len);
        let is_of_replay = OF_REPLAYS.iter().any(is) && bytes <= REPLAY_HEADER_BYTES_MAX;
        if bytes <= room || is_of_replay {
            room = room.saturating_sub(bytes);
            headers.push_bytes(name, value);
        }
    }
    headers
}

/// When the record failed for the first time ever, as an earlier letter or a replay of it says; none where that is no time or
/// has not come yet, since anybody may have written it.
pub(crate) fn known_first_failure(record: &Record, now: Timestamp) -> Option<Timestamp> {
    let value = record.headers().last_value(FIRST_FAILURE)?;
    let time: Timestamp = std::str::from_utf8(value).ok()?.parse().ok()?;
    (time <= now).then_some(time)
}

/// The timestamp of the record that a letter is of, as its headers say.
pub(crate) fn record_timestamp_ms(letter: &Headers) -> Option<i64> {
    let text = letter.last(RECORD_TIMESTAMP)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
