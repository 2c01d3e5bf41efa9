//! Entries of a retry topic are written, and read back, whoever wrote them.

use super::entry_headers::{
    ATTEMPTS, GROUP, KIND, NOT_BEFORE, OF, OFFSET, ROUNDS, SINCE, TIMESTAMP, TOPIC,
};
use super::*;
use crate::event::{Headers, OutgoingRecord, Record, RecordBatchBuilder};
use crate::handler::Class;
use crate::recovery::dead_letter::FIRST_FAILURE;
use proptest::prelude::*;
use std::collections::BTreeSet;

type Header<'a> = (&'a [u8], Option<&'a [u8]>);

fn record(headers: &[Header<'_>]) -> Record {
    let mut builder = RecordBatchBuilder::new();
    let source = builder.source("orders".into(), 3);
    let headers = headers.iter().copied();
    builder.push(source, 42, 1_700, Some(b"k"), Some(b"v"), headers);
    builder.build(None).record(0).expect("a record")
}

fn stored(record: &OutgoingRecord) -> Stored<'_> {
    Stored {
        partition: 3,
        offset: 900,
        timestamp_ms: 1,
        key: record.key.as_deref(),
        value: record.value.as_deref(),
    }
}

const OWNER: Owner<'_> = Owner {
    group: "g",
    topic: "orders",
};

const WAIT: RetryState = RetryState {
    rounds: 2,
    attempts: 7,
    not_before_ms: 99,
};
const REASON: Reason<'_> = Reason {
    class: Class::Transient,
    message: "no answer",
};

#[test]
fn a_parked_record_returns_unchanged_with_its_position_and_time() {
    let own: [Header<'_>; 4] = [
        (b"ce_id", Some(b"1")),
        (b"\xff", Some(&[0, 0xff])),
        (b"absent", None),
        (b"ce_id", Some(b"2")),
    ];
    let written = parked("g", &record(&own), WAIT, Some(REASON), 5);
    assert_eq!(written.topic, "retry.g.orders");
    assert_eq!((written.partition, written.timestamp_ms), (Some(3), None));
    let headers = written.headers.iter();
    let read = restored(&"orders".into(), stored(&written), headers, None).expect("a record");
    assert_eq!(
        (read.topic(), read.partition(), read.offset()),
        ("orders", 3, 42)
    );
    assert_eq!(read.timestamp_ms(), Some(1_700));
    assert_eq!(
        (read.key(), read.value()),
        (Some(&b"k"[..]), Some(&b"v"[..]))
    );
    let first = (
        FIRST_FAILURE.as_bytes(),
        Some(&b"1970-01-01T00:00:00.005Z"[..]),
    );
    assert_eq!(
        read.headers().collect::<Vec<_>>(),
        [&own[..], &[first]].concat()
    );
    let untimed = {
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source("orders".into(), 3);
        builder.push(source, 42, -1, None, None, std::iter::empty());
        builder.build(None).record(0).expect("a record")
    };
    let written = parked("g", &untimed, WAIT, None, 5);
    let headers = written.headers.iter();
    let back = restored(&"orders".into(), stored(&written), headers, None).expect("a record");
    assert_eq!(back.timestamp_ms(), None);
    let again = parked("g", &read, RetryState::default(), None, 6);
    let entry = RetryTopicEntry::Parked {
        source_offset: Some(42),
        wait: RetryState::default(),
        is_replay: false,
    };
    assert_eq!(RetryTopicEntry::read(again.headers.iter(), OWNER), entry);
}

#[test]
fn written_entries_are_read_back() {
    let record = record(&[]);
    let why = |written: &OutgoingRecord| ParkedReason::read(written.headers.iter());
    let parked = parked("g", &record, WAIT, Some(REASON), 5);
    let entry = RetryTopicEntry::Parked {
        source_offset: Some(42),
        wait: WAIT,
        is_replay: false,
    };
    assert_eq!(RetryTopicEntry::read(parked.headers.iter(), OWNER), entry);
    assert_eq!(why(&parked).message.as_deref(), Some("no answer"));
    assert_eq!(why(&parked).since_ms, Some(5));
    let failed = failed_again("g", &record, 900, WAIT, REASON, 5);
    let entry = RetryTopicEntry::Failed {
        retry_offset: 900,
        wait: WAIT,
    };
    assert_eq!(RetryTopicEntry::read(failed.headers.iter(), OWNER), entry);
    assert_eq!(
        (failed.key.as_deref(), failed.value),
        (Some(&b"k"[..]), None)
    );
    let held = held("g", &record, 5);
    assert_eq!(
        RetryTopicEntry::read(held.headers.iter(), OWNER),
        RetryTopicEntry::Held { source_offset: 42 }
    );
}

/// Every kind of entry that this group writes of this topic.
fn written_by(group: &str) -> [OutgoingRecord; 4] {
    let record = record(&[]);
    let outcome = crate::recovery::RepetitionOutcome::Done;
    [
        parked(group, &record, WAIT, Some(REASON), 5),
        failed_again(group, &record, 900, WAIT, REASON, 5),
        held(group, &record, 5),
        repetition::answer(group, &record, 900, outcome),
    ]
}

#[test]
fn an_entry_of_another_group_or_topic_is_foreign() {
    for written in written_by("g") {
        let read =
            |group, topic| RetryTopicEntry::read(written.headers.iter(), Owner { group, topic });
        assert_ne!(read("g", "orders"), RetryTopicEntry::Foreign);
        // Ambiguous names belong to the same topic.
        assert_eq!(read("g.o", "rders"), RetryTopicEntry::Foreign);
        assert_eq!(read("g", "others"), RetryTopicEntry::Foreign);
        assert_eq!(read("h", "orders"), RetryTopicEntry::Foreign);
    }
}

#[test]
fn an_entry_without_owner_belongs_to_the_reader() {
    for written in written_by("g") {
        let says_whose = |name: &[u8]| name == GROUP.as_bytes() || name == TOPIC.as_bytes();
        let old = written.headers.iter().filter(|(name, _)| !says_whose(name));
        let old: Headers = old.collect();
        let now = RetryTopicEntry::read(written.headers.iter(), OWNER);
        assert_eq!(RetryTopicEntry::read(old.iter(), OWNER), now);
        let other = Owner {
            group: "h",
            topic: "x",
        };
        assert_eq!(RetryTopicEntry::read(old.iter(), other), now);
    }
}

#[test]
fn hostile_numbers_are_never_trusted() {
    let wait_of = |name: &str, value: Option<&[u8]>| {
        let headers: Headers = [(name.as_bytes(), value)].into_iter().collect();
        match RetryTopicEntry::read(headers.iter(), OWNER) {
            RetryTopicEntry::Parked { wait, .. } => wait,
            other => panic!("{other:?}"),
        }
    };
    for bad in ["", "-1", "x", "9223372036854775808", "1e3", " 1"] {
        assert_eq!(
            wait_of(ROUNDS, Some(bad.as_bytes())).rounds,
            u32::MAX,
            "{bad}"
        );
        assert_eq!(wait_of(NOT_BEFORE, Some(bad.as_bytes())).not_before_ms, 0);
    }
    assert_eq!(wait_of(ROUNDS, None).rounds, u32::MAX);
    assert_eq!(wait_of(ROUNDS, Some(b"4294967296")).rounds, u32::MAX);
    assert_eq!(wait_of("other", Some(b"1")), RetryState::default());
    let headers: Headers = [(KIND.as_bytes(), Some(&b"failed"[..]))]
        .into_iter()
        .collect();
    assert_eq!(
        RetryTopicEntry::read(headers.iter(), OWNER),
        RetryTopicEntry::Unknown
    );
}

#[test]
fn the_table_of_the_docs_has_exactly_the_headers() {
    const PREFIX: &str = "evenkeel.parked.";
    let is_header = |name: &&str| name.len() > PREFIX.len() && name.starts_with(PREFIX);
    let sources = [
        include_str!("entry_headers.rs"),
        include_str!("repetition.rs"),
    ];
    let in_code = sources.iter().flat_map(|source| source.split('"'));
    let in_code: BTreeSet<&str> = in_code.filter(is_header).collect();
    let docs = include_str!("../../../docs/src/operate/retry-topic.md");
    let rows = docs.lines().filter(|line| line.starts_with("| `"));
    let first_cells = rows.filter_map(|line| line.split('|').nth(1));
    let in_docs = first_cells.flat_map(|cell| cell.split('`'));
    let in_docs: BTreeSet<&str> = in_docs.filter(is_header).collect();
    assert_eq!(in_docs, in_code);
}

proptest! {
    #[test]
    fn any_headers_are_read(headers: Vec<(usize, Option<Vec<u8>>)>) {
        let names = [KIND, GROUP, TOPIC, OFFSET, TIMESTAMP, ROUNDS, ATTEMPTS, NOT_BEFORE, SINCE, OF];
        let headers: Headers = headers.iter()
            .map(|(name, value)| (names[name % names.len()].as_bytes(), value.as_deref()))
            .collect();
        let _ = (RetryTopicEntry::read(headers.iter(), OWNER), ParkedReason::read(headers.iter()));
    }
}
