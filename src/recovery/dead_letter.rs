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

use crate::control::Command;
use crate::event::{Headers, OutgoingRecord, Record};
use crate::handler::{Class, DeadReason};
use bytes::Bytes;

/// Bytes of the failure's message at most. Brokers bound the whole record, and the payload needs the room.
const MESSAGE_BYTES_MAX: usize = 1024;

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
pub(crate) const RECORD_TIMESTAMP: &str = "evenkeel.dlq.record.timestamp";
pub(crate) const SKIPPED_BY: &str = "evenkeel.dlq.skipped-by";
pub(crate) const SKIPPED_WHY: &str = "evenkeel.dlq.skipped-why";
pub(crate) const SKIP_COMMAND: &str = "evenkeel.dlq.skip-command";

/// What the letter of a record that an operator had skipped adds.
const SKIP: &[&str] = &[SKIPPED_BY, SKIPPED_WHY, SKIP_COMMAND];

/// All headers that a dead letter adds.
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
    RECORD_TIMESTAMP,
];

/// What is known about a failure beside the record.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failure<'a> {
    /// The group that gives the record up.
    pub(crate) group: &'a str,
    /// The service in it, as its client id says.
    pub(crate) service: &'a str,
    /// Where and why it failed.
    pub(crate) reason: &'a DeadReason,
    /// The last error's class.
    pub(crate) class: Class,
    /// How often its handler was tried.
    pub(crate) attempts: u32,
    /// When it was given up.
    pub(crate) now: jiff::Timestamp,
    /// The command that had it skipped, if it did not fail.
    pub(crate) skip: Option<&'a Command>,
}

/// The topic of what `group` gives up of `topic`.
///
/// It needs as many partitions as `topic`. A group whose name has characters that no topic may have cannot have one:
/// that is for the consumer to check before it starts.
pub(crate) fn dead_letter_topic(group: &str, topic: &str) -> String {
    format!("dlq.{group}.{topic}")
}

/// The dead letter of a record: to the partition of the same number, with key, value and headers as they are.
///
/// It carries the time of writing, not the record's own: retention counts from a record's timestamp, and a dead letter
/// of an old record would be deleted before anybody has seen it. The record's own time is in a header.
pub(crate) fn dead_letter(record: &Record, failure: &Failure<'_>) -> OutgoingRecord {
    letter(record, failure, MESSAGE_BYTES_MAX)
}

/// The dead letter without the failure's message, for a record that is too large for the brokers with it.
///
/// Where this is still too large, no dead letter can be written: the topic has to be given a larger `max.message.bytes`,
/// and until then the partition stands still. A record that only refers to the source is not written instead.
pub(crate) fn shortened(record: &Record, failure: &Failure<'_>) -> OutgoingRecord {
    letter(record, failure, 0)
}

fn letter(record: &Record, failure: &Failure<'_>, message_bytes_max: usize) -> OutgoingRecord {
    let mut headers = Headers::new();
    for (name, value) in record.headers() {
        let mut ours = OURS.iter().chain(SKIP);
        if !ours.any(|ours| ours.as_bytes() == name) {
            headers.push_bytes(name, value);
        }
    }
    let mut add = |name, value: &str| headers.push(name, Some(value.as_bytes()));
    add(TOPIC, record.topic());
    add(PARTITION, &record.partition().to_string());
    add(OFFSET, &record.offset().to_string());
    add(GROUP, failure.group);
    add(DELIVERY_COUNT, &failure.attempts.to_string());
    let message = &failure.reason.message;
    add(
        MESSAGE,
        &message[..message.floor_char_boundary(message_bytes_max)],
    );
    add(CLASS, failure.class.as_str());
    add(STAGE, failure.reason.stage.as_str());
    add(TIMESTAMP, &failure.now.to_string());
    add(SERVICE, failure.service);
    if let Some(timestamp_ms) = record.timestamp_ms() {
        add(RECORD_TIMESTAMP, &timestamp_ms.to_string());
    }
    if let Some(command) = failure.skip {
        add(SKIPPED_BY, &command.by);
        add(SKIPPED_WHY, &command.why);
        add(SKIP_COMMAND, &command.id);
    }
    OutgoingRecord {
        topic: dead_letter_topic(failure.group, record.topic()),
        partition: Some(record.partition()),
        key: record.key().map(Bytes::copy_from_slice),
        value: record.value().map(Bytes::copy_from_slice),
        headers,
        timestamp_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RecordBatchBuilder;
    use crate::handler::Stage;
    use crate::recovery::{DeadLetter, Destination, Provenance, replayed};

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    fn record_of(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> Record {
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source("orders".into(), 3);
        builder.push(
            source,
            42,
            1_700_000_000_123,
            key,
            value,
            headers.iter().copied(),
        );
        builder.build(None).record(0).expect("a record")
    }

    fn letter_of(record: &Record, message: &str) -> OutgoingRecord {
        let failure = failure(message);
        dead_letter(record, &with_reason(&failure))
    }

    fn failure(message: &str) -> DeadReason {
        DeadReason::new(Stage::Schema, message)
    }

    fn with_reason(reason: &DeadReason) -> Failure<'_> {
        Failure {
            group: "payments",
            service: "payments-1",
            reason,
            class: Class::Permanent,
            attempts: 7,
            now: "2026-11-21T10:11:12Z".parse().expect("a timestamp"),
            skip: None,
        }
    }

    /// One assertion per header, each a test of its own by name.
    macro_rules! header_tests {
        ($($test:ident: $name:expr => $expected:expr;)*) => {$(
            #[test]
            fn $test() {
                let letter = letter_of(&record_of(None, None, &[]), "no total");
                let values: Vec<_> = letter.headers.iter().filter(|(name, _)| *name == $name.as_bytes()).collect();
                let expected: &str = $expected;
                assert_eq!(values, [($name.as_bytes(), Some(expected.as_bytes()))]);
            }
        )*};
    }

    header_tests! {
        the_topic_is_the_sources: "__dlq.errors.topic" => "orders";
        the_partition_is_the_sources: "__dlq.errors.partition" => "3";
        the_offset_is_the_sources: "__dlq.errors.offset" => "42";
        the_group_is_the_one_that_gave_up: "__dlq.errors.group" => "payments";
        the_delivery_count_is_the_attempts: "__dlq.errors.delivery.count" => "7";
        the_message_is_the_reasons: "__dlq.errors.message" => "no total";
        the_class_is_the_errors: "evenkeel.dlq.error.class" => "permanent";
        the_stage_is_the_reasons: "evenkeel.dlq.error.stage" => "schema";
        the_timestamp_is_when_it_was_given_up: "evenkeel.dlq.error.timestamp" => "2026-11-21T10:11:12Z";
        the_service_is_named: "evenkeel.dlq.error.service" => "payments-1";
        the_records_own_time_is_kept: "evenkeel.dlq.record.timestamp" => "1700000000123";
    }

    #[test]
    fn it_goes_to_the_groups_topic_and_the_same_partition_with_a_time_of_its_own() {
        let letter = letter_of(&record_of(None, None, &[]), "");
        assert_eq!(letter.topic, "dlq.payments.orders");
        assert_eq!(letter.partition, Some(3));
        assert_eq!(letter.timestamp_ms, None);
    }

    #[test]
    fn key_value_and_headers_are_kept_byte_for_byte_and_in_order() {
        let headers: [Header<'_>; 5] = [
            (b"ce_id", Some(b"1")),
            (b"\xff\xfe", Some(&[0, 0xff])),
            (b"absent", None),
            (b"empty", Some(&[])),
            (b"ce_id", Some(b"2")),
        ];
        let record = record_of(Some(&[0, 0xff]), Some(&[0xc3, 0x28]), &headers);
        let letter = letter_of(&record, "");
        assert_eq!(letter.key.as_deref(), Some(&[0, 0xff][..]));
        assert_eq!(letter.value.as_deref(), Some(&[0xc3, 0x28][..]));
        assert!(letter.headers.iter().take(headers.len()).eq(headers));
        assert_eq!(letter.headers.iter().count(), headers.len() + OURS.len());
    }

    #[test]
    fn absent_and_empty_stay_apart() {
        let absent = letter_of(&record_of(None, None, &[]), "");
        assert_eq!((absent.key, absent.value), (None, None));
        let empty = letter_of(&record_of(Some(b""), Some(b""), &[]), "");
        assert_eq!(
            (empty.key, empty.value),
            (Some(Bytes::new()), Some(Bytes::new()))
        );
    }

    #[test]
    fn a_second_trip_replaces_what_the_first_one_added() {
        let first = letter_of(&record_of(None, None, &[(b"mine", Some(b"1"))]), "first");
        let headers: Vec<_> = first.headers.iter().collect();
        let second = letter_of(&record_of(None, None, &headers), "second");
        assert_eq!(second.headers.iter().count(), headers.len());
        assert_eq!(second.headers.last("mine"), Some(&b"1"[..]));
        assert_eq!(second.headers.last(MESSAGE), Some(&b"second"[..]));
    }

    #[test]
    fn what_is_known_about_replays_survives_the_next_failure() {
        let first = letter_of(&record_of(None, None, &[(b"ce_id", Some(b"1"))]), "first");
        let replay = |letter: OutgoingRecord| {
            let record = crate::kafka::reader::LogRecord {
                topic: letter.topic.as_str().into(),
                partition: 3,
                offset: 9,
                timestamp_kind: crate::kafka::reader::TimestampKind::Absent,
                timestamp_ms: None,
                key: None,
                value: None,
                headers: letter.headers,
            };
            let failure = DeadLetter::read(record.headers.iter());
            let to = Destination::source(&failure, |_| 4).expect("a source");
            let provenance = Provenance {
                by: "ada",
                at: jiff::Timestamp::UNIX_EPOCH,
                edited: false,
            };
            replayed(record, to, &provenance)
        };
        let once = replay(first);
        let headers: Vec<_> = once.headers.iter().collect();
        let second = letter_of(&record_of(None, None, &headers), "second");
        let read = DeadLetter::read(second.headers.iter());
        assert_eq!(
            (read.replay_count, read.message.as_deref()),
            (1, Some("second"))
        );
        assert_eq!(read.first_failure, "2026-11-21T10:11:12Z".parse().ok());
        let twice = replay(second);
        let read = DeadLetter::read(twice.headers.iter());
        assert_eq!((read.replay_count, read.family), (2, None));
        assert_eq!(twice.headers.last("ce_id"), Some(&b"1"[..]));
    }

    #[test]
    fn the_letter_of_a_skipped_record_says_who_and_why_and_the_next_failure_does_not() {
        let record = "orders/3@42".parse().expect("a position");
        let action = crate::control::Action::Skip { record };
        let command = Command::new("ada", "poison", action).expect("a command");
        let reason = DeadReason::new(Stage::Skipped, "skipped by ada: poison");
        let failure = Failure {
            skip: Some(&command),
            ..with_reason(&reason)
        };
        let skipped = dead_letter(&record_of(None, None, &[]), &failure);
        let text = |letter: &OutgoingRecord, name| {
            let value = letter.headers.last(name)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        assert_eq!(text(&skipped, STAGE).as_deref(), Some("skipped"));
        assert_eq!(text(&skipped, SKIPPED_BY).as_deref(), Some("ada"));
        assert_eq!(text(&skipped, SKIPPED_WHY).as_deref(), Some("poison"));
        assert_eq!(text(&skipped, SKIP_COMMAND), Some(command.id.clone()));
        let headers: Vec<_> = skipped.headers.iter().collect();
        let failed = letter_of(&record_of(None, None, &headers), "again");
        assert!(SKIP.iter().all(|name| text(&failed, name).is_none()));
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let letter = letter_of(
            &record_of(None, None, &[]),
            &format!("x{}", "é".repeat(1000)),
        );
        let message = letter.headers.last(MESSAGE).expect("a message");
        assert_eq!(message.len(), 1023);
        assert!(std::str::from_utf8(message).is_ok());
    }

    #[test]
    fn shortened_it_still_says_class_and_stage() {
        let reason = failure(&"x".repeat(2000));
        let letter = shortened(&record_of(None, None, &[]), &with_reason(&reason));
        assert_eq!(letter.headers.last(MESSAGE), Some(&b""[..]));
        assert_eq!(letter.headers.last(STAGE), Some(&b"schema"[..]));
        assert_eq!(letter.headers.last(CLASS), Some(&b"permanent"[..]));
    }
}
