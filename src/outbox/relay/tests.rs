//! The window's rules, one by one.

use super::super::store::{ReadPage, RowId, StoredRow};
use super::blocked_keys::UNFIT_KEYS_MAX;
use super::in_flight_rows::{Fact, Outcome, Window};
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

fn next(window: &mut Window) -> Option<i64> {
    window.next(|_| true).map(|row| row.id.sequence)
}

fn page(window: &Window) -> super::super::store::Page {
    window.page(&BTreeSet::from([0])).expect("room")
}

fn refused() -> Outcome {
    Outcome::Refused("no such topic".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_keys_next_row_waits_for_the_previous_acknowledgement() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t"), row(2, 7, "t"), row(3, 8, "t")]));
    assert_eq!([next(&mut window), next(&mut window)], [Some(1), Some(3)]);
    assert_eq!(next(&mut window), None);
    window.settle(7, Outcome::Published, Instant::now(), 0.0);
    assert_eq!(next(&mut window), Some(2));
}

#[tokio::test(start_paused = true)]
async fn keys_are_not_reread_before_published_rows_are_deleted() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t")]));
    next(&mut window);
    window.settle(7, Outcome::Published, Instant::now(), 0.0);
    assert_eq!(page(&window).without_keys, [7]);
    assert_eq!(window.published(), [id(1)]);
    window.deleted(1);
    assert_eq!(page(&window).without_keys, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn due_keys_are_reread_after_published_rows_are_deleted() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut window);
    window.settle(7, Outcome::Published, Instant::now(), 0.0);
    next(&mut window);
    window.settle(7, refused(), Instant::now(), 0.0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(window.wake(Instant::now()));
    assert_eq!(page(&window).without_keys, [7]);
    window.deleted(1);
    assert_eq!(page(&window).without_keys, [0_i64; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_key_waits_and_restarts_at_its_first_row() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut window);
    let fact = window.settle(7, refused(), Instant::now(), 0.0);
    assert!(
        matches!(
            fact,
            Some(Fact::Held {
                row: RowId { sequence: 1, .. },
                is_new: true,
                ..
            })
        ),
        "{fact:?}"
    );
    assert!(window.is_empty(), "its rows are dropped");
    assert_eq!((next(&mut window), window.held_keys()), (None, 1));
    assert_eq!(page(&window).without_keys, [7]);
    assert!(!window.wake(Instant::now()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(window.wake(Instant::now()));
    assert_eq!(page(&window).without_keys, [0_i64; 0]);
    window.take(whole([row(1, 7, "t"), row(2, 7, "t")]));
    next(&mut window);
    let fact = window.settle(7, refused(), Instant::now(), 0.0);
    assert!(
        matches!(fact, Some(Fact::Held { is_new: false, .. })),
        "{fact:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_held_key_is_released_when_its_row_is_deleted() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t")]));
    next(&mut window);
    window.settle(7, refused(), Instant::now(), 0.0);
    tokio::time::advance(Duration::from_secs(1)).await;
    window.wake(Instant::now());
    window.take(whole([]));
    assert_eq!(window.held_keys(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_refusing_many_keys_stops_until_one_is_published() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole((0..16).map(|key| row(key, key, "missing"))));
    while next(&mut window).is_some() {}
    for key in 0..16 {
        window.settle(key, refused(), Instant::now(), 0.5);
    }
    assert_eq!(page(&window).without_topics, ["missing"]);
    // The first is due before the others.
    window.wake(window.next_wake().expect("all wait"));
    let due = page(&window).yet_keys;
    assert!(!due.is_empty());
    window.take(whole(due.iter().map(|key| row(*key, *key, "missing"))));
    next(&mut window);
    window.settle(due[0], Outcome::Published, Instant::now(), 0.5);
    let page = page(&window);
    assert_eq!(page.without_topics, [""; 0]);
    let due_again = page.yet_keys.len() + due.len();
    assert_eq!(due_again, 16, "the others need not wait");
}

#[tokio::test(start_paused = true)]
async fn unfit_records_do_not_stop_their_topic() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole((0..40).map(|key| row(key, key, "t"))));
    while next(&mut window).is_some() {}
    for key in 0..40 {
        window.settle(
            key,
            Outcome::Unfit("too large".to_owned()),
            Instant::now(),
            0.5,
        );
    }
    assert_eq!(
        (page(&window).without_topics.len(), window.held_keys()),
        (0, 40)
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_with_many_rows_leaves_room_for_others() {
    let mut window = Window::new(&RelaySettings::default());
    let may_have_more = window.take(whole((0..1_000).map(|sequence| row(sequence, 7, "t"))));
    assert!(may_have_more);
    assert_eq!(page(&window).rows_max, 2_000 - 32);
    assert_eq!(page(&window).without_keys, [7]);
}

#[tokio::test(start_paused = true)]
async fn rows_of_a_lost_slot_are_removed_unless_being_sent() {
    let mut window = Window::new(&RelaySettings::default());
    window.take(whole([row(1, 7, "t"), row(2, 7, "t"), row(3, 8, "t")]));
    assert_eq!(next(&mut window), Some(1));
    window.lose(&[0]);
    assert_eq!(next(&mut window), None);
    assert!(window.is_busy(0));
    window.settle(7, Outcome::Published, Instant::now(), 0.0);
    assert_eq!(window.published(), [id(1)]);
    window.deleted(1);
    assert!(window.is_empty() && !window.is_busy(0));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_news_if_its_row_or_reason_changed() {
    let mut window = Window::new(&RelaySettings::default());
    let mut refuse = async |sequence: i64, reason: &str| {
        window.take(whole([row(sequence, 7, "t")]));
        assert_eq!(next(&mut window), Some(sequence));
        let outcome = Outcome::Unfit(reason.to_owned());
        let fact = window.settle(7, outcome, Instant::now(), 0.0);
        tokio::time::advance(Duration::from_secs(100)).await;
        window.wake(Instant::now());
        let Some(Fact::Held { has_news, .. }) = fact else {
            panic!("it is not held: {fact:?}");
        };
        has_news
    };
    for (sequence, reason, expected) in [
        (1, "too large", true),
        (1, "too large", false),
        (1, "no key", true),
        (1, "no key", false),
        (2, "no key", true),
    ] {
        let has_news = refuse(sequence, reason).await;
        assert_eq!(has_news, expected, "{sequence} {reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_unfit_rows_stop_a_topic_until_one_goes() {
    let settings = RelaySettings {
        rows_max: 2 * UNFIT_KEYS_MAX,
        ..RelaySettings::default()
    };
    let mut window = Window::new(&settings);
    window.take(whole((0..).take(UNFIT_KEYS_MAX).map(|n| row(n, n, "t"))));
    let mut stops = 0;
    while let Some(key) = next(&mut window) {
        assert_eq!(page(&window).without_topics, [""; 0]);
        let outcome = Outcome::Unfit("too large".to_owned());
        let fact = window.settle(key, outcome, Instant::now(), 0.5);
        let Some(Fact::Held { stops_topic, .. }) = fact else {
            panic!("it is not held: {fact:?}");
        };
        stops += usize::from(stops_topic);
    }
    assert_eq!(
        (stops, page(&window).without_topics),
        (1, vec!["t".to_owned()])
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    window.wake(Instant::now());
    window.take(whole(
        (1..).take(UNFIT_KEYS_MAX - 1).map(|n| row(n, n, "t")),
    ));
    assert_eq!(page(&window).without_topics, [""; 0]);
}
