use super::failure_headers::{
    CLASS, MESSAGE, REFERENCE, SKIP_COMMAND, SKIPPED_BY, SKIPPED_WHY, STAGE, TOPIC,
};
use super::write::{OF_REPLAYS, OURS, SKIP};
use super::*;
use crate::control::Command;
use crate::event::{OutgoingRecord, Record, RecordBatchBuilder};
use crate::handler::{Class, DeadReason, Stage};
use crate::recovery::{DeadLetter, Destination, Provenance, replayed};
use bytes::Bytes;
use std::collections::BTreeSet;

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
    dead_letter(record, &with_reason(&failure), Form::Whole)
}

fn failure(message: &str) -> DeadReason {
    DeadReason::new(Stage::Schema, message)
}

fn with_reason(reason: &DeadReason) -> Failure<'_> {
    Failure {
        to: &DeadLetterTopic::PerTopic,
        group: "payments",
        service: "payments",
        instance: "host/7",
        reason,
        class: Class::Permanent,
        attempts: 7,
        first_failure: Some("2026-11-21T10:00:00Z".parse().expect("a timestamp")),
        now: "2026-11-21T10:11:12Z".parse().expect("a timestamp"),
        skip: None,
    }
}

/// One assertion per header, each in a test of its own name.
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
    the_service_is_named: "evenkeel.dlq.error.service" => "payments";
    the_instance_is_named: "evenkeel.dlq.error.instance" => "host/7";
    the_first_failure_is_the_first_attempts: "evenkeel.dlq.first-failure" => "2026-11-21T10:00:00Z";
    the_records_own_time_is_kept: "evenkeel.dlq.record.timestamp" => "1700000000123";
}

/// Its timestamp is its own.
#[test]
fn it_goes_to_the_groups_topic_at_the_same_partition() {
    let letter = letter_of(&record_of(None, None, &[]), "");
    assert_eq!(letter.topic, "dlq.payments.orders");
    assert_eq!(letter.partition, Some(3));
    assert_eq!(letter.timestamp_ms, None);
}

/// Headers keep their order.
#[test]
fn key_value_and_headers_are_kept_byte_for_byte() {
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
    // The header of the first failure is added to ours, and only a reference has that of
    // references.
    assert_eq!(letter.headers.iter().count(), headers.len() + OURS.len());
    assert_eq!(letter.headers.last(REFERENCE), None);
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
fn replay_headers_survive_the_next_failure() {
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
    assert_eq!(read.first_failure, "2026-11-21T10:00:00Z".parse().ok());
    let twice = replay(second);
    let read = DeadLetter::read(twice.headers.iter());
    assert_eq!((read.replay_count, read.family), (2, None));
    assert_eq!(twice.headers.last("ce_id"), Some(&b"1"[..]));
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
fn a_shortened_dead_letter_keeps_class_and_stage() {
    let reason = failure(&"x".repeat(2000));
    let letter = dead_letter(
        &record_of(None, Some(b"x"), &[]),
        &with_reason(&reason),
        Form::Shortened,
    );
    assert_eq!(letter.headers.last(MESSAGE), Some(&b""[..]));
    assert_eq!(letter.headers.last(STAGE), Some(&b"schema"[..]));
    assert_eq!(letter.headers.last(CLASS), Some(&b"permanent"[..]));
}

#[test]
fn a_first_failure_is_kept_where_it_may_be_true() {
    let check = |known: &str, expected: &str| {
        let header: Header<'_> = (FIRST_FAILURE.as_bytes(), Some(known.as_bytes()));
        let letter = letter_of(&record_of(None, None, &[header]), "");
        let all: Vec<_> = letter
            .headers
            .iter()
            .filter(|(name, _)| *name == header.0)
            .collect();
        assert_eq!(all, [(header.0, Some(expected.as_bytes()))], "{known}");
    };
    check("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z");
    check("2026-11-21T10:11:13Z", "2026-11-21T10:00:00Z");
    check("yesterday", "2026-11-21T10:00:00Z");
    check("", "2026-11-21T10:00:00Z");
}

#[test]
fn one_topic_for_all_takes_it_by_its_key() {
    let reason = failure("");
    let failure = Failure {
        to: &DeadLetterTopic::One("dlq.all".to_owned()),
        ..with_reason(&reason)
    };
    let record = record_of(Some(b"k"), None, &[]);
    let letter = dead_letter(&record, &failure, Form::Whole);
    assert_eq!((letter.topic.as_str(), letter.partition), ("dlq.all", None));
    assert_eq!(letter.headers.last(TOPIC), Some(&b"orders"[..]));
}

#[test]
fn a_reference_keeps_key_and_fitting_headers_and_says_so() {
    let large = [b'x'; 5000];
    let headers: [Header<'_>; 6] = [
        (b"ce_type", Some(b"shop.order-placed.v1")),
        (b"large", Some(&large)),
        (b"half", Some(&large[..3000])),
        (b"other half", Some(&large[..3000])),
        (b"evenkeel.dlq.replay-count", Some(b"3")),
        (b"evenkeel.dlq.replayed-by", Some(&large)),
    ];
    let record = record_of(Some(b"k"), Some(&large), &headers);
    let reason = failure("too large");
    let letter = dead_letter(&record, &with_reason(&reason), Form::Reference);
    assert_eq!(
        (letter.key.as_deref(), letter.value),
        (Some(&b"k"[..]), None)
    );
    let kept: Vec<&[u8]> = letter
        .headers
        .iter()
        .take(3)
        .map(|(name, _)| name)
        .collect();
    let expected: [&[u8]; 3] = [b"ce_type", b"half", b"evenkeel.dlq.replay-count"];
    assert_eq!(kept, expected);
    let read = DeadLetter::read(letter.headers.iter());
    assert!(read.is_reference);
    assert_eq!(read.message.as_deref(), Some("too large"));
    assert_eq!(
        (read.topic.as_deref(), read.partition, read.offset),
        (Some("orders"), Some(3), Some(42))
    );
    let forged: [Header<'_>; 1] = [(REFERENCE.as_bytes(), Some(b"true"))];
    let letter = letter_of(&record_of(None, None, &forged), "");
    assert_eq!(letter.headers.last(REFERENCE), None);
}

/// The dead letter of the record's next failure does not.
#[test]
fn a_skipped_records_dead_letter_names_operator_and_reason() {
    let record = "orders/3@42".parse().expect("a position");
    let action = crate::control::Action::Skip { record };
    let command = Command::new("ada", "poison", action).expect("a command");
    let reason = DeadReason::new(Stage::Skipped, "skipped by ada: poison");
    let failure = Failure {
        skip: Some(&command),
        ..with_reason(&reason)
    };
    let skipped = dead_letter(&record_of(None, None, &[]), &failure, Form::Whole);
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
fn the_table_of_the_docs_has_exactly_the_headers() {
    let docs = include_str!("../../../docs/src/operate/dead-letters.md");
    let names = docs.lines().filter(|line| line.starts_with("| `"));
    let names = names.filter_map(|line| line.split('|').nth(1));
    let names = names.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let ours = ["__dlq.", "evenkeel.dlq."];
    let documented: BTreeSet<&str> = names
        .filter(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    let written: BTreeSet<&str> = OURS.iter().chain(OF_REPLAYS).chain(SKIP).copied().collect();
    assert_eq!(documented, written);
}
