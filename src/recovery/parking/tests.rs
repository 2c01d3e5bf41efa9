//! The parked set, step by step.

use super::super::parked::RetryTopicEntry;
use super::position::{RANGES_MAX, RetryPosition};
use super::*;

const A: &[u8] = b"a";
const B: &[u8] = b"b";

fn parked(source_offset: i64, rounds: u32, not_before_ms: i64) -> RetryTopicEntry {
    RetryTopicEntry::Parked {
        source_offset: Some(source_offset),
        wait: RetryState {
            rounds,
            attempts: rounds,
            not_before_ms,
        },
        is_replay: false,
    }
}

fn replay(source_offset: i64) -> RetryTopicEntry {
    RetryTopicEntry::Parked {
        source_offset: Some(source_offset),
        wait: RetryState::default(),
        is_replay: true,
    }
}

fn empty() -> ParkedSet {
    ParkedSet::new(0, 0, &[], 1_000, false)
}

fn due(parking: &mut ParkedSet, now_ms: i64) -> Vec<i64> {
    let tickets = parking.take_due(now_ms, usize::MAX);
    tickets.iter().map(|ticket| ticket.offset).collect()
}

fn settle(parking: &mut ParkedSet, offset: i64) {
    let id = (0..parking.keys.len() as u32)
        .find(|id| parking.keys[*id as usize].queue.front() == Some(&offset));
    let key = id.expect("the first of a key");
    parking.settle(Ticket { key, offset });
}

#[test]
fn a_key_waits_from_parking_until_its_last_record_settles() {
    let mut parking = empty();
    assert!(!parking.begin_if_waiting(A, 5));
    parking.begin(Some(A), 5);
    assert!(parking.begin_if_waiting(A, 6) && !parking.begin_if_waiting(B, 7));
    parking.seen(0, Some(A), parked(5, 1, 100), 0);
    assert!(due(&mut parking, 99).is_empty());
    assert_eq!(due(&mut parking, 100), [0]);
    settle(&mut parking, 0);
    assert!(parking.begin_if_waiting(A, 8), "6 was written and not seen");
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    parking.seen(2, Some(A), parked(8, 0, 0), 0);
    assert_eq!(due(&mut parking, 100), [1, 2]);
    settle(&mut parking, 1);
    settle(&mut parking, 2);
    assert!(!parking.begin_if_waiting(A, 9));
    assert_eq!((parking.keys(), parking.records()), (0, 0));
}

#[test]
fn a_wait_that_was_shortened_before_its_note_was_seen_stays_short() {
    let failed = |rounds| RetryState {
        rounds,
        attempts: rounds,
        not_before_ms: 900,
    };
    let note = |rounds| RetryTopicEntry::Failed {
        retry_offset: 0,
        wait: failed(rounds),
    };
    let mut parking = empty();
    parking.seen(0, Some(A), parked(5, 1, 0), 0);
    let tickets = parking.take_due(0, 10);
    // An operator dropped it while it was handled, or releases its key now.
    let dropped = RetryState {
        not_before_ms: 0,
        ..failed(2)
    };
    parking.put_back(tickets[0], dropped);
    parking.seen(1, Some(A), note(2), 0);
    assert_eq!(due(&mut parking, 0), [0]);
    parking.put_back(tickets[0], failed(3));
    assert!(parking.release(A));
    parking.seen(2, Some(A), note(3), 0);
    assert_eq!(due(&mut parking, 0), [0]);
    // Notes that come late say nothing new.
    parking.put_back(tickets[0], failed(3));
    parking.seen(3, Some(A), note(2), 0);
    parking.seen(4, Some(A), note(3), 0);
    assert_eq!(parking.start(tickets[0]), Some(failed(3)));
    assert!(due(&mut parking, 899).is_empty());
    assert_eq!(due(&mut parking, 900), [0]);
    // One that is new, as of another member that still ran, counts.
    parking.seen(5, Some(A), note(4), 0);
    parking.hand_back(tickets[0], 0);
    assert!(due(&mut parking, 899).is_empty());
    assert_eq!(due(&mut parking, 900), [0]);
}

#[test]
fn a_record_behind_one_that_failed_again_does_not_start() {
    let mut parking = empty();
    parking.seen(0, Some(A), parked(5, 1, 0), 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    let tickets = parking.take_due(0, 10);
    assert!(parking.start(tickets[0]).is_some() && parking.start(tickets[1]).is_none());
    let wait = RetryState {
        rounds: 2,
        attempts: 2,
        not_before_ms: 50,
    };
    parking.put_back(tickets[0], wait);
    assert!(parking.start(tickets[1]).is_none());
    assert!(due(&mut parking, 49).is_empty());
    assert_eq!(parking.due_ms(), Some(50));
    let again = parking.take_due(50, 10);
    assert_eq!(parking.start(again[0]), Some(wait));
}

#[test]
fn a_wait_is_known_again_after_a_restart() {
    let mut parking = ParkedSet::new(0, 3, &[], 1_000, false);
    parking.seen(0, Some(A), parked(5, 1, 10), 0);
    let second = RetryTopicEntry::Failed {
        retry_offset: 0,
        wait: RetryState {
            rounds: 2,
            attempts: 5,
            not_before_ms: 70,
        },
    };
    assert!(!parking.is_whole() && parking.position().is_none());
    parking.seen(1, Some(A), second, 0);
    parking.reached(3);
    let position = parking.position().expect("the set is whole");
    assert_eq!((position.watermark, position.next), (0, 3));
    assert_eq!(position.unsettled, [0..2]);
    assert!(due(&mut parking, 69).is_empty());
    let ticket = parking.take_due(70, 1)[0];
    assert_eq!(parking.start(ticket).map(|wait| wait.rounds), Some(2));
    parking.settle(ticket);
    let position = parking.position().expect("the set is whole");
    assert_eq!((position.watermark, position.unsettled), (3, vec![]));
}

#[test]
fn no_record_waits_for_longer_than_the_policy_says() {
    let mut parking = empty();
    parking.seen(0, Some(A), parked(5, 1, i64::MAX), 40);
    assert_eq!(parking.due_ms(), Some(1_040));
}

#[test]
fn a_held_key_continues_with_its_replayed_dead_letter() {
    let mut parking = empty();
    parking.begin_hold(A, 5);
    assert!(parking.begin_if_waiting(A, 6));
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    parking.seen(2, Some(A), replay(4), 0);
    assert!(due(&mut parking, i64::MAX).is_empty());
    parking.seen(3, Some(A), replay(5), 0);
    assert_eq!(
        due(&mut parking, 0),
        [3],
        "what it goes before stands far from it"
    );
    assert_eq!(parking.position().expect("whole").watermark, 0);
    settle(&mut parking, 3);
    assert_eq!(parking.position().expect("whole").watermark, 1);
    assert_eq!(due(&mut parking, 0), [1, 2]);
    settle(&mut parking, 1);
    settle(&mut parking, 2);
    assert_eq!(parking.keys(), 0);
}

#[test]
fn a_released_key_goes_on_at_once() {
    let mut parking = empty();
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    parking.seen(2, Some(B), parked(7, 1, 900), 0);
    assert!(!parking.release(b"c") && parking.release(A));
    assert_eq!(due(&mut parking, 0), [1]);
    assert_eq!(parking.first_of(B), Some((2, false)));
    assert_eq!(parking.release_waiting(0), 1);
    assert_eq!(due(&mut parking, 0), [2]);
    assert_eq!(parking.release_waiting(0), 0);
}

#[test]
fn records_without_a_key_wait_for_themselves() {
    let mut parking = empty();
    parking.begin(None, 5);
    parking.seen(0, None, parked(5, 1, 10), 0);
    parking.seen(1, None, parked(6, 1, 0), 0);
    let wait = RetryState {
        rounds: 2,
        attempts: 2,
        not_before_ms: 20,
    };
    parking.seen(
        2,
        None,
        RetryTopicEntry::Failed {
            retry_offset: 0,
            wait,
        },
        0,
    );
    assert_eq!(due(&mut parking, 19), [1]);
    assert_eq!(due(&mut parking, 20), [0]);
    settle(&mut parking, 0);
    settle(&mut parking, 1);
    assert_eq!(
        (parking.keys(), parking.position().expect("whole").watermark),
        (0, 3)
    );
}

#[test]
fn records_settled_before_a_restart_are_not_parked_again() {
    let mut parking = ParkedSet::new(4, 8, &[5..6, 7..8], 1_000, false);
    for offset in 4..8 {
        parking.seen(offset, Some(A), parked(offset, 0, 0), 0);
    }
    assert_eq!(due(&mut parking, 0), [4, 6]);
}

#[test]
fn an_entry_being_written_has_a_position_before_it_is_read() {
    for begin in [
        (|parking| parking.begin(Some(b"k"), 3)) as fn(&mut ParkedSet),
        |parking| parking.begin(None, 3),
        |parking| parking.begin_hold(b"k", 3),
    ] {
        let mut parking = ParkedSet::new(7, 7, &[], 1_000, false);
        assert!(parking.position().is_none());
        begin(&mut parking);
        let position = parking
            .position()
            .expect("the group commits where it began");
        assert_eq!((position.watermark, position.next), (7, 7));
    }
}

#[test]
fn a_committed_offset_is_reported_with_nothing_parked() {
    let position = |committed| ParkedSet::new(7, 7, &[], 1_000, committed).position();
    let expected = RetryPosition {
        is_whole: true,
        watermark: 7,
        next: 7,
        unsettled: vec![],
    };
    assert_eq!((position(true), position(false)), (Some(expected), None));
}

#[test]
fn records_without_room_in_the_commit_count_as_unseen() {
    let mut parking = empty();
    let end = 2 * RANGES_MAX as i64 + 10;
    for offset in 0..end {
        parking.seen(offset, None, parked(offset, 0, 0), 0);
    }
    let tickets = parking.take_due(0, usize::MAX);
    let settled = tickets.iter().filter(|ticket| ticket.offset % 2 == 1);
    settled.for_each(|ticket| parking.settle(*ticket));
    let position = parking.position().expect("whole");
    assert_eq!(position.unsettled.len(), RANGES_MAX);
    let covered_to = position.unsettled.last().map(|last| last.end);
    assert!(Some(position.next) == covered_to && position.next < end);
}

#[test]
fn a_key_hands_out_a_limited_number_of_records() {
    let mut parking = empty();
    for offset in 0..2 * RUN_RECORDS_MAX as i64 {
        parking.seen(offset, Some(A), parked(offset, 0, 0), 0);
    }
    let run: Vec<i64> = (0..RUN_RECORDS_MAX as i64).collect();
    assert_eq!(due(&mut parking, 0), run);
    assert!(due(&mut parking, 0).is_empty());
    run.iter().for_each(|offset| settle(&mut parking, *offset));
    assert_eq!(due(&mut parking, 0).len(), RUN_RECORDS_MAX);
}

#[test]
fn an_unavailable_record_comes_again_with_those_behind_it() {
    let mut parking = empty();
    for offset in 0..3 {
        parking.seen(offset, Some(A), parked(offset, 1, 0), 0);
    }
    let tickets = parking.take_due(0, 10);
    parking.hand_back(tickets[1], 500);
    assert!(due(&mut parking, 499).is_empty(), "the first is handed out");
    parking.settle(tickets[0]);
    assert_eq!(
        due(&mut parking, 0),
        [1, 2],
        "only the first of a key waits"
    );
    parking.hand_back(tickets[1], 500);
    assert!(due(&mut parking, 499).is_empty());
    assert_eq!(due(&mut parking, 500), [1, 2]);
}

#[test]
fn losing_a_record_behind_the_first_does_not_affect_it() {
    let mut parking = empty();
    parking.seen(0, Some(A), parked(5, 1, 50), 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    let tickets = parking.take_due(50, 10);
    parking.settle(tickets[1]);
    assert_eq!(parking.start(tickets[0]).map(|wait| wait.rounds), Some(1));
    assert_eq!(parking.records(), 1);
}

#[test]
fn a_released_key_leaves_no_note_behind() {
    let mut parking = empty();
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    assert!(parking.release(A));
    assert_eq!(parking.keys(), 0);
    assert_eq!(parking.position().expect("whole").watermark, 1);
}

#[test]
fn a_key_whose_replay_dies_again_is_held_again() {
    let mut parking = empty();
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    parking.seen(2, Some(A), replay(5), 0);
    assert_eq!(due(&mut parking, 0), [2]);
    parking.begin_hold(A, 5);
    parking.seen(3, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    settle(&mut parking, 2);
    assert!(due(&mut parking, i64::MAX).is_empty());
    parking.seen(4, Some(A), replay(5), 0);
    assert_eq!(due(&mut parking, 0), [4]);
}

#[test]
fn a_replay_before_its_hold_takes_the_held_place() {
    let mut parking = empty();
    parking.seen(0, Some(A), parked(6, 1, 900), 0);
    parking.seen(1, Some(A), replay(5), 0);
    parking.seen(2, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    assert_eq!(due(&mut parking, 0), [1]);
    settle(&mut parking, 1);
    assert_eq!(due(&mut parking, 0), [0]);
    settle(&mut parking, 0);
    assert_eq!(parking.position().expect("whole").watermark, 3);
}

#[test]
fn a_replay_that_is_settled_holds_no_place() {
    let mut parking = empty();
    parking.seen(0, Some(A), replay(5), 0);
    assert_eq!(due(&mut parking, 0), [0]);
    parking.begin_hold(A, 5);
    settle(&mut parking, 0);
    parking.seen(1, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    parking.seen(2, Some(A), parked(6, 0, 0), 0);
    assert!(due(&mut parking, i64::MAX).is_empty());
}

#[test]
fn releasing_a_key_cancels_a_hold_still_being_written() {
    let mut parking = ParkedSet::new(0, 0, &[], 1_000, false);
    parking.begin_hold(A, 5);
    assert!(parking.begin_if_waiting(A, 6));
    assert!(parking.release(A));
    // Both entries were being written.
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    parking.seen(1, Some(A), parked(6, 0, 0), 0);
    let tickets = parking.take_due(0, 10);
    assert_eq!(tickets.len(), 1, "the key goes on");
    parking.settle(tickets[0]);
    assert_eq!((parking.keys(), parking.records()), (0, 0));
    assert_eq!(
        parking.position().map(|position| position.watermark),
        Some(2)
    );
}

#[test]
fn a_released_key_stays_until_its_entry_is_seen() {
    let mut parking = ParkedSet::new(0, 0, &[], 1_000, false);
    parking.begin_hold(A, 5);
    assert!(parking.release(A));
    assert_eq!(parking.keys(), 1);
    parking.seen(0, Some(A), RetryTopicEntry::Held { source_offset: 5 }, 0);
    assert_eq!(parking.keys(), 0);
    // A later hold of the same key is in force.
    parking.begin_hold(A, 7);
    parking.seen(1, Some(A), RetryTopicEntry::Held { source_offset: 7 }, 0);
    parking.seen(2, Some(A), parked(8, 0, 0), 0);
    assert_eq!(parking.take_due(0, 10), []);
}

#[test]
fn a_record_rejected_by_the_retry_topic_frees_its_key() {
    let mut parking = empty();
    parking.begin(Some(A), 5);
    assert!(parking.begin_if_waiting(A, 6));
    parking.not_written(A, 5);
    assert!(parking.begin_if_waiting(A, 7), "6 is on its way still");
    parking.seen(0, Some(A), parked(6, 0, 0), 0);
    parking.not_written(A, 7);
    assert_eq!(due(&mut parking, 0), [0]);
    settle(&mut parking, 0);
    assert!(!parking.begin_if_waiting(A, 8));
    parking.begin_hold(A, 9);
    assert!(parking.begin_if_waiting(A, 10));
    parking.not_written(A, 10);
    parking.not_held(A, 9);
    assert!(!parking.begin_if_waiting(A, 11));
    assert_eq!(parking.keys(), 0);
}

#[test]
fn unsettled_deleted_records_are_lost_until_that_is_accepted() {
    let settled = [4..6, 8..10, 30..40];
    let mut parking = ParkedSet::new(20, 20, &settled, 1_000, true);
    parking.log_begins_at(20, 2);
    assert_eq!(
        (parking.lost(), parking.first_lost()),
        (2 + 2 + 10, Some(2))
    );
    let position = parking.position().expect("it is whole");
    assert_eq!((position.watermark, position.next), (2, 20));
    assert_eq!(position.unsettled, [2..4, 6..8, 10..20]);
    assert_eq!(parking.accept_loss(), 14);
    let position = parking.position().expect("it is whole");
    assert_eq!((position.watermark, position.unsettled), (20, Vec::new()));

    let mut parking = empty();
    for (offset, name) in [(0, A), (1, B), (2, A)] {
        parking.seen(offset, Some(name), parked(offset, 1, 0), 0);
    }
    let tickets = parking.take_due(0, usize::MAX);
    let of = |offset| {
        *tickets
            .iter()
            .find(|ticket| ticket.offset == offset)
            .expect("due")
    };
    parking.mark_lost(of(0));
    parking.settle(of(1));
    parking.settle(of(2));
    let position = parking.position().expect("it is whole");
    assert_eq!((position.watermark, position.unsettled), (0, vec![0..1]));
    assert_eq!((parking.lost(), parking.keys()), (1, 0), "its key goes on");
}

#[test]
fn nothing_is_lost_where_all_before_the_beginning_was_settled() {
    let mut parking = ParkedSet::new(20, 20, &[5..20], 1_000, true);
    parking.log_begins_at(20, 5);
    assert_eq!(parking.lost(), 0);
    let mut parking = ParkedSet::new(20, 20, &[], 1_000, true);
    parking.log_begins_at(20, 20);
    parking.log_begins_at(3, 20);
    assert_eq!(parking.lost(), 0);
}
