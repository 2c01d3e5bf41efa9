//! Facts and the state that follows from them.

use super::*;
use proptest::prelude::*;

const TOPIC: &str = "shop.orders";

fn at(offset: i64) -> RecordPosition {
    RecordPosition {
        topic: TOPIC.to_owned(),
        partition: 3,
        offset,
    }
}

/// Offsets below 100 are settled, and 102 to 104.
fn progress() -> PartitionProgress {
    let mut progress = PartitionProgress::new(3);
    progress.committed = Some(100);
    progress.settled_above = vec![102..105];
    progress
}

fn facts(offset: i64) -> Facts {
    Facts::new(at(offset), Members::Count(2), progress())
}

fn dead_letter() -> FoundDeadLetter {
    FoundDeadLetter {
        at: RecordPosition {
            topic: "dlq.payments.shop.orders".to_owned(),
            partition: 3,
            offset: 7,
        },
        class: Some("permanent".to_owned()),
        message: Some("no such customer".to_owned()),
        attempts: Some(4),
        skipped_by: None,
        is_replayed: false,
        is_last: true,
    }
}

fn first(not_before_ms: i64) -> Parked {
    Parked::First {
        not_before_ms,
        attempts: 2,
        class: Some("transient".to_owned()),
        message: Some("timed out".to_owned()),
    }
}

fn behind() -> Parked {
    Parked::Behind {
        offset: Some(90),
        not_before_ms: Some(5_000),
        reason: "timed out".to_owned(),
    }
}

#[test]
fn each_set_of_facts_has_one_state() {
    type Change = fn(&mut Facts);
    let found: Change = |facts| facts.dead_letter = DeadLetterSearch::Found(dead_letter());
    let cases: &[(&str, i64, Change, GroupState)] = &[
        ("below the commit", 99, |_| {}, GroupState::Settled),
        ("listed above it", 103, |_| {}, GroupState::Settled),
        ("at the commit", 100, |_| {}, GroupState::Pending),
        ("above the list", 105, |_| {}, GroupState::Pending),
        (
            "no member",
            105,
            |facts| facts.members = Members::Count(0),
            GroupState::Unassigned,
        ),
        (
            "the brokers cannot tell the members",
            105,
            |facts| facts.members = Members::Unknown,
            GroupState::Pending,
        ),
        (
            "never committed",
            99,
            |facts| facts.progress.committed = None,
            GroupState::Pending,
        ),
        (
            "no such group",
            99,
            |facts| {
                facts.progress = PartitionProgress::new(3);
                facts.members = Members::NoGroup;
            },
            GroupState::Unknown,
        ),
        (
            "its failure waits",
            99,
            |facts| facts.parked = first(5_000),
            GroupState::Retrying,
        ),
        (
            "another waits before it",
            99,
            |facts| facts.parked = behind(),
            GroupState::Waiting,
        ),
        (
            "too many are parked",
            99,
            |facts| facts.parked = Parked::TooMany,
            GroupState::Unknown,
        ),
        ("dead", 99, found, GroupState::Dead),
        (
            "parked again after its dead letter was replayed",
            99,
            |facts| {
                facts.dead_letter = DeadLetterSearch::Found(dead_letter());
                facts.parked = first(0);
            },
            GroupState::Retrying,
        ),
        (
            "replayed and done",
            99,
            |facts| {
                facts.dead_letter = DeadLetterSearch::Found(FoundDeadLetter {
                    is_replayed: true,
                    ..dead_letter()
                });
            },
            GroupState::Settled,
        ),
        (
            "marks of replays cut off",
            99,
            |facts| {
                facts.dead_letter = DeadLetterSearch::Found(FoundDeadLetter {
                    is_last: false,
                    ..dead_letter()
                });
            },
            GroupState::Unknown,
        ),
        (
            "skipped with a dead letter",
            99,
            |facts| {
                facts.dead_letter = DeadLetterSearch::Found(FoundDeadLetter {
                    skipped_by: Some("ada".to_owned()),
                    ..dead_letter()
                });
            },
            GroupState::Skipped,
        ),
        (
            "skipped by a command alone",
            99,
            |facts| facts.skipped_by = Some("ada".to_owned()),
            GroupState::Skipped,
        ),
        (
            "dead letters cut off",
            99,
            |facts| facts.dead_letter = DeadLetterSearch::Incomplete,
            GroupState::Unknown,
        ),
        (
            "an effect before the commit",
            105,
            |facts| facts.completed_ms = Some(1),
            GroupState::Settled,
        ),
        (
            "an effect after a dead letter",
            99,
            |facts| {
                facts.dead_letter = DeadLetterSearch::Found(dead_letter());
                facts.completed_ms = Some(1);
            },
            GroupState::Settled,
        ),
    ];
    for (name, offset, change, expected) in cases {
        let mut facts = facts(*offset);
        change(&mut facts);
        let status = verdict("payments", &facts);
        assert_eq!(status.state, *expected, "{name}");
        assert_eq!(status.group, "payments");
    }
}

#[test]
fn a_pending_event_counts_the_unsettled_records_before_it() {
    for (offset, expected) in [(100, 0), (101, 1), (105, 2), (110, 7)] {
        let status = verdict("payments", &facts(offset));
        assert_eq!(status.records_before, Some(expected), "{offset}");
    }
    let mut new = facts(5);
    new.progress.committed = None;
    assert_eq!(verdict("payments", &new).records_before, None);
}

#[test]
fn details_come_with_their_state() {
    let mut retrying = facts(99);
    retrying.parked = first(5_000);
    let status = verdict("payments", &retrying);
    assert_eq!(status.until, Timestamp::from_second(5).ok());
    assert_eq!(status.attempt, Some(2));
    assert_eq!(status.class.as_deref(), Some("transient"));
    assert_eq!(status.reason.as_deref(), Some("timed out"));
    retrying.parked = first(0);
    assert_eq!(verdict("payments", &retrying).until, None, "due at once");

    let mut waiting = facts(99);
    waiting.parked = behind();
    let status = verdict("payments", &waiting);
    let before = status.behind.expect("the record before it");
    assert_eq!((&*before.topic, before.partition), (TOPIC, 3));
    assert_eq!(before.offset, Some(90));
    assert_eq!(before.reason.as_deref(), Some("timed out"));

    let mut dead = facts(99);
    dead.dead_letter = DeadLetterSearch::Found(dead_letter());
    let status = verdict("payments", &dead);
    assert_eq!(status.dead_letter, Some(dead_letter().at));
    assert_eq!(status.class.as_deref(), Some("permanent"));

    let mut done = facts(99);
    done.completed_ms = Some(7_000);
    let status = verdict("payments", &done);
    assert_eq!(status.completed_at, Timestamp::from_second(7).ok());
}

/// A key with these records, whose first one has been tried twice.
fn key(source_offsets: &[Option<i64>]) -> ParkedKey {
    let mut key = ParkedKey::default();
    key.source_offsets = source_offsets.to_vec();
    key.source_offset = source_offsets.first().copied().flatten();
    key.wait.attempts = 2;
    key.wait.not_before_ms = 5_000;
    key.why.message = Some("timed out".to_owned());
    key
}

#[test]
fn a_record_is_found_among_the_waiting_keys() {
    let mut held = key(&[Some(30)]);
    held.held_for = Some(29);
    let keys = [key(&[None]), key(&[Some(10), Some(12)]), held];
    let place = |offset| match parked_in(&keys, offset) {
        Parked::First { attempts, .. } => format!("first after {attempts}"),
        Parked::Behind { offset, .. } => format!("behind {offset:?}"),
        other => format!("{other:?}"),
    };
    for (offset, expected) in [
        (10, "first after 2"),
        (11, "No"),
        (12, "behind Some(10)"),
        (30, "behind Some(29)"),
        (0, "No"),
    ] {
        assert_eq!(place(offset), expected, "{offset}");
    }
}

proptest! {
    #[test]
    fn the_unsettled_before_an_offset_are_those_counted_one_by_one(
        committed in 0_i64..50,
        ahead in 0_i64..60,
        lengths in proptest::collection::vec((1_i64..5, 1_i64..5), 0..8),
    ) {
        let mut settled = Vec::new();
        let mut next = committed;
        for (gap, length) in lengths {
            settled.push(next + gap..next + gap + length);
            next += gap + length;
        }
        let offset = committed + ahead;
        let counted = (committed..offset)
            .filter(|at| !settled.iter().any(|run| run.contains(at)))
            .count();
        prop_assert_eq!(unsettled_in(&(committed..offset), &settled), counted as u64);
    }
}
