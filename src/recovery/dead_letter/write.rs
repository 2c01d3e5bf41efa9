//! Writes dead letters: the original record byte for byte, with the failure in its headers.
//!
//! Only creates the record; the consumer sends it. Brokers reject a record above
//! `max.message.bytes`, which is known only when they do. The writer therefore tries the forms in
//! the order of [`Form::ALL`], each smaller than the one before.

use super::failure_headers::{
    CLASS, DELIVERY_COUNT, EDITED, FIRST_FAILURE, GROUP, INSTANCE, MESSAGE, OFFSET, PARTITION,
    RECORD_TIMESTAMP, REFERENCE, REPLAY_COUNT, REPLAY_OF, REPLAYED_AT, REPLAYED_BY, SERVICE,
    SKIP_COMMAND, SKIPPED_BY, SKIPPED_WHY, STAGE, TIMESTAMP, TOPIC, known_first_failure,
};
use super::topic::DeadLetterTopic;
use crate::control::Command;
use crate::event::{Headers, OutgoingRecord, Record};
use crate::failure::{Class, DeadReason};
use bytes::Bytes;
use jiff::Timestamp;

/// The most bytes of the failure's message. Brokers limit the whole record, and the payload needs
/// the room.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The most bytes of the original's own headers that a reference keeps: enough for an event's type,
/// id and trace.
const REFERENCE_HEADERS_BYTES_MAX: usize = 4096;

/// Headers that are added to the dead letter of a record skipped by an operator. They are removed
/// from a record that brings them along and fails: it was not skipped this time.
pub(super) const SKIP: &[&str] = &[SKIPPED_BY, SKIPPED_WHY, SKIP_COMMAND];

/// All headers that a dead letter adds. They replace older ones of the same name.
pub(super) const OURS: &[&str] = &[
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

/// Headers that a replay adds. They are short, and the next replay continues the count from them.
pub(super) const OF_REPLAYS: &[&str] = &[
    REPLAY_COUNT,
    REPLAY_OF,
    REPLAYED_BY,
    REPLAYED_AT,
    FIRST_FAILURE,
    EDITED,
];

/// The most bytes of a replay's header in a reference: anyone may have written it.
const REPLAY_HEADER_BYTES_MAX: usize = 512;

/// The description of a failure, beside the record. Everything in it but the record's own headers
/// is known to the consumer; nothing of it is read from the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    /// The topic of the dead letter.
    pub(crate) to: &'a DeadLetterTopic,
    /// The group that dead-letters the record.
    pub(crate) group: &'a str,
    /// The service, by its client id.
    pub(crate) service: &'a str,
    /// The instance of the service.
    pub(crate) instance: &'a str,
    /// The stage and reason of the failure.
    pub(crate) reason: &'a DeadReason,
    /// The class of the last error.
    pub(crate) class: Class,
    /// The number of attempts.
    pub(crate) attempts: u32,
    /// When the first attempt failed. None for a record that was skipped before any attempt.
    pub(crate) first_failure: Option<Timestamp>,
    /// When the record is dead-lettered.
    pub(crate) now: Timestamp,
    /// The command that skipped the record, if it did not fail.
    pub(crate) skip: Option<&'a Command>,
}

/// How much of the record its dead letter contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Key, value and headers as they are.
    Whole,
    /// Without the failure's message.
    Shortened,
    /// Without the value, and with the first few kilobytes of the headers.
    ///
    /// It names the position of the original, from which tools fetch it while its topic keeps it.
    Reference,
}

impl Form {
    /// From the complete form to the smallest one that still describes the failure. A caller goes
    /// on to the next one only if the brokers refused the form before for its size. If even the
    /// last one is too large, because of the key, the dead letter cannot be written:
    /// `max.message.bytes` of the topic must be raised, and until then the partition is blocked.
    pub(crate) const ALL: [Self; 3] = [Self::Whole, Self::Shortened, Self::Reference];
}

/// Creates the dead letter of a record.
///
/// Its timestamp is the time of writing, not that of the record: retention counts from a record's
/// timestamp, and a dead letter of an old record would be deleted before anyone has seen it. The
/// record's own timestamp is in a header.
pub(crate) fn dead_letter(record: &Record, failure: &Failure<'_>, form: Form) -> OutgoingRecord {
    let known_first = known_first_failure(record, failure.now);
    let mut headers = kept_headers(record, known_first.is_some(), form);
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

/// The original's headers that its dead letter keeps, in order. A reference keeps the first ones up
/// to [`REFERENCE_HEADERS_BYTES_MAX`], and those of replays, without which the next replay would
/// count from 0.
pub(super) fn kept_headers(record: &Record, keeps_first_failure: bool, form: Form) -> Headers {
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
