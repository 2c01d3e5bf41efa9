//! The rules of the rows in memory, one by one; bursts of rows, in `bursts.rs`; when rows are read,
//! in `reads.rs`; relays that stop beside others, in `hand_over.rs`; and in `stops.rs` with a store
//! that does not answer, which is `slow_store.rs`.

mod bursts;
mod hand_over;
mod reads;
mod slow_store;
mod stops;

use super::super::store::{ReadPage, RowId, StoredRow};
use super::blocked_keys::UNFIT_KEYS_MAX;
use super::in_flight_rows::{InFlightRows, RowSettled, SendOutcome};
use super::settings::RelaySettings;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

fn row(sequence: i64, key: i64, topic: &str) -> StoredRow {
    StoredRow {
        id: id(sequence),
        key_hash: key,
        slot: 0,
        topic: topic.to_owned(),
        bytes: 1,
        record: Err("none is needed".to_owned()),
    }
}

fn id(sequence: i64) -> RowId {
    RowId {
        sequence,
        event: sequence.to_string().into(),
    }
}

fn whole(rows: impl IntoIterator<Item = StoredRow>) -> ReadPage {
    ReadPage {
        rows: rows.into_iter().collect(),
        is_whole: true,
    }
}

fn next(in_flight: &mut InFlightRows) -> Option<i64> {
    in_flight.next(|_| true).map(|row| row.id.sequence)
}

fn page(in_flight: &InFlightRows) -> super::super::store::Page {
    in_flight.page(&BTreeSet::from([0])).expect("room")
}

fn refused() -> SendOutcome {
    SendOutcome::Refused("no such topic".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_keys_next_row_waits_for_the_previous_acknowledgement() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t"), row(3, 8, "t")]));
    assert_eq!(
        [next(&mut in_flight), next(&mut in_flight)],
        [Some(1), Some(3)]
    );
    assert_eq!(next(&mut in_flight), None);
    in_flight.settle(7, SendOutcome::Published, Instant::now(), 0.0);
    assert_eq!(next(&mut in_flight), Some(2));
}

#[tokio::test(start_paused = true)]
async fn keys_are_not_reread_before_published_rows_are_deleted() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t")]));
    next(&mut in_flight);
    in_flight.settle(7, SendOutcome::Published, Instant::now(), 0.0);
    assert_eq!(page(&in_flight).without_keys, [7]);
    assert_eq!(in_flight.published(), [id(1)]);
    in_flight.deleted(1);
    assert_eq!(page(&in_flight).without_keys, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn due_keys_are_reread_after_published_rows_are_deleted() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut in_flight);
    in_flight.settle(7, SendOutcome::Published, Instant::now(), 0.0);
    next(&mut in_flight);
    in_flight.settle(7, refused(), Instant::now(), 0.0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(in_flight.wake(Instant::now()));
    assert_eq!(page(&in_flight).without_keys, [7]);
    assert!(in_flight.deleted(1), "it can be read now");
    assert_eq!(page(&in_flight).without_keys, [0_i64; 0]);
}

/// A read would exclude a key with rows in memory, and pass over its backlog for nothing.
#[tokio::test(start_paused = true)]
async fn a_delete_asks_for_a_read_only_for_keys_without_rows_in_memory() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    for is_readable in [false, true] {
        next(&mut in_flight);
        in_flight.settle(7, SendOutcome::Published, Instant::now(), 0.0);
        assert_eq!(in_flight.deleted(1), is_readable);
    }
    assert!(!in_flight.wake(Instant::now()), "it was reported");
}

/// Nobody may be told that the rest of the key is in the store: its slot is still leased.
#[tokio::test(start_paused = true)]
async fn a_key_whose_row_was_not_sent_is_read_again() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut in_flight);
    in_flight.settle(7, SendOutcome::NotSent, Instant::now(), 0.0);
    assert!(in_flight.wake(Instant::now()));
    assert_eq!(page(&in_flight).without_keys, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_waits_and_restarts_at_its_first_row() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut in_flight);
    let settled = in_flight.settle(7, refused(), Instant::now(), 0.0);
    assert!(
        matches!(
            settled,
            Some(RowSettled::Held {
                row: RowId { sequence: 1, .. },
                is_new: true,
                ..
            })
        ),
        "{settled:?}"
    );
    assert!(in_flight.is_empty(), "its rows are dropped");
    assert_eq!((next(&mut in_flight), in_flight.held_keys()), (None, 1));
    assert_eq!(page(&in_flight).without_keys, [7]);
    assert!(!in_flight.wake(Instant::now()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(in_flight.wake(Instant::now()));
    assert_eq!(page(&in_flight).without_keys, [0_i64; 0]);
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut in_flight);
    let settled = in_flight.settle(7, refused(), Instant::now(), 0.0);
    assert!(
        matches!(settled, Some(RowSettled::Held { is_new: false, .. })),
        "{settled:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_held_key_is_released_when_its_row_is_deleted() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t")]));
    next(&mut in_flight);
    in_flight.settle(7, refused(), Instant::now(), 0.0);
    tokio::time::advance(Duration::from_secs(1)).await;
    in_flight.wake(Instant::now());
    in_flight.take(whole([]));
    assert_eq!(in_flight.held_keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_refusing_many_keys_stops_until_one_is_published() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole((0..16).map(|key| row(key, key, "missing"))));
    while next(&mut in_flight).is_some() {}
    for key in 0..16 {
        in_flight.settle(key, refused(), Instant::now(), 0.5);
    }
    assert_eq!(page(&in_flight).without_topics, ["missing"]);
    // The first is due before the others.
    in_flight.wake(in_flight.next_wake().expect("all wait"));
    let due = page(&in_flight).due_keys;
    assert!(!due.is_empty());
    in_flight.take(whole(due.iter().map(|key| row(*key, *key, "missing"))));
    next(&mut in_flight);
    in_flight.settle(due[0], SendOutcome::Published, Instant::now(), 0.5);
    assert!(in_flight.wake(Instant::now()), "its rows can be read");
    let page = page(&in_flight);
    assert_eq!(page.without_topics, [""; 0]);
    let due_again = page.due_keys.len() + due.len();
    assert_eq!(due_again, 16, "the others need not wait");
}

#[tokio::test(start_paused = true)]
async fn unfit_records_do_not_stop_their_topic() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole((0..40).map(|key| row(key, key, "t"))));
    while next(&mut in_flight).is_some() {}
    for key in 0..40 {
        in_flight.settle(
            key,
            SendOutcome::Unfit("too large".to_owned()),
            Instant::now(),
            0.5,
        );
    }
    assert_eq!(
        (page(&in_flight).without_topics.len(), in_flight.held_keys()),
        (0, 40)
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_with_many_rows_leaves_room_for_others() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    let may_have_more = in_flight.take(whole((0..1_000).map(|sequence| row(sequence, 7, "t"))));
    assert!(may_have_more);
    assert_eq!(page(&in_flight).rows_max, 2_000 - 32);
    assert_eq!(page(&in_flight).without_keys, [7]);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_lost_slot_are_removed_unless_being_sent() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    in_flight.take(whole([row(1, 7, "t"), row(2, 7, "t"), row(3, 8, "t")]));
    assert_eq!(next(&mut in_flight), Some(1));
    in_flight.lose_slots(&[0]);
    assert_eq!(next(&mut in_flight), None);
    assert!(in_flight.is_busy(0));
    in_flight.settle(7, SendOutcome::Published, Instant::now(), 0.0);
    assert_eq!(in_flight.published(), [id(1)]);
    in_flight.deleted(1);
    assert!(in_flight.is_empty() && !in_flight.is_busy(0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_news_if_its_row_or_reason_changed() {
    let mut in_flight = InFlightRows::new(&RelaySettings::default());
    let mut refuse = async |sequence: i64, reason: &str| {
        in_flight.take(whole([row(sequence, 7, "t")]));
        assert_eq!(next(&mut in_flight), Some(sequence));
        let outcome = SendOutcome::Unfit(reason.to_owned());
        let settled = in_flight.settle(7, outcome, Instant::now(), 0.0);
        tokio::time::advance(Duration::from_secs(100)).await;
        in_flight.wake(Instant::now());
        let Some(RowSettled::Held { needs_mark, .. }) = settled else {
            panic!("it is not held: {settled:?}");
        };
        needs_mark
    };
    for (sequence, reason, expected) in [
        (1, "too large", true),
        (1, "too large", false),
        (1, "no key", true),
        (1, "no key", false),
        (2, "no key", true),
    ] {
        let needs_mark = refuse(sequence, reason).await;
        assert_eq!(needs_mark, expected, "{sequence} {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_unfit_rows_stop_a_topic_until_one_goes() {
    let settings = RelaySettings {
        rows_max: 2 * UNFIT_KEYS_MAX,
        ..RelaySettings::default()
    };
    let mut in_flight = InFlightRows::new(&settings);
    in_flight.take(whole((0..).take(UNFIT_KEYS_MAX).map(|n| row(n, n, "t"))));
    let mut stops = 0;
    while let Some(key) = next(&mut in_flight) {
        assert_eq!(page(&in_flight).without_topics, [""; 0]);
        let outcome = SendOutcome::Unfit("too large".to_owned());
        let settled = in_flight.settle(key, outcome, Instant::now(), 0.5);
        let Some(RowSettled::Held { stops_topic, .. }) = settled else {
            panic!("it is not held: {settled:?}");
        };
        stops += usize::from(stops_topic);
    }
    assert_eq!(
        (stops, page(&in_flight).without_topics),
        (1, vec!["t".to_owned()])
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    in_flight.wake(Instant::now());
    in_flight.take(whole(
        (1..).take(UNFIT_KEYS_MAX - 1).map(|n| row(n, n, "t")),
    ));
    assert_eq!(page(&in_flight).without_topics, [""; 0]);
}
