//! Which deliveries form a batch, and their outcomes.

mod failures;
mod timeouts;
mod transactions;

use super::settings::RECORDS_MAX;
use super::*;
use crate::event::EventType;
use crate::event::test_record::received_event;
use crate::handler::{Class, Delivery, DeliveryScope, Router, Stage, State};
use crate::inbox::{Claimed, Inbox, InboxError, InboxKey, MemoryInbox, SqliteInbox, SqliteTx};
use futures_util::future::join_all;
use std::any::TypeId;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tower::Service;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Paid {
    cents: i64,
}

impl EventType for Paid {
    const TYPE: &'static str = "test.paid.v1";
    const TOPIC: &'static str = "test.payments";

    fn key(&self) -> String {
        "account".to_owned()
    }
}

fn delivery(id: i64, attempt: u32) -> Delivery {
    let record = received_event("/test", id, &Paid { cents: id });
    Delivery::new(record, attempt, Arc::new(DeliveryScope::new("group")))
}

/// Delivers events together: all have arrived before a batch can begin.
async fn deliver(router: &mut Router, ids: impl IntoIterator<Item = i64>) -> Vec<Outcome> {
    deliver_again(router, ids, 1).await
}

async fn deliver_again(
    router: &mut Router,
    ids: impl IntoIterator<Item = i64>,
    attempt: u32,
) -> Vec<Outcome> {
    let calls = ids.into_iter().map(|id| router.call(delivery(id, attempt)));
    let calls: Vec<_> = calls.collect();
    let outcomes = within(join_all(calls)).await;
    outcomes.into_iter().map(|Ok(outcome)| outcome).collect()
}

/// Fails a wait that takes longer than any case of this test.
async fn within<T>(waiting: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    ended.expect("it ends")
}

/// The batches that a handler received, as the amounts of their events.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Vec<i64>>>>);

impl Seen {
    fn see(&self, events: &[Delivered<Paid>]) {
        let ids = events.iter().map(|paid| paid.event.data.cents);
        self.0.lock().unwrap().push(ids.collect());
    }

    fn taken(&self) -> Vec<Vec<i64>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

async fn see(events: Vec<Delivered<Paid>>, State(seen): State<Seen>) {
    seen.see(&events);
}

fn are_done(outcomes: &[Outcome]) -> bool {
    let mut outcomes = outcomes.iter();
    outcomes.all(|outcome| matches!(outcome, Outcome::Done))
}

fn classes(outcomes: &[Outcome]) -> Vec<Class> {
    let classifier = crate::handler::default_classifier();
    let classes = outcomes.iter().map(|outcome| match outcome {
        Outcome::Retry(error) => error.class(&classifier),
        other => panic!("{other:?}"),
    });
    classes.collect()
}

fn limits(records_max: usize) -> BatchSettings {
    BatchSettings {
        records_max,
        ..BatchSettings::default()
    }
}

#[tokio::test]
async fn ready_events_form_one_batch_up_to_the_limit() {
    let seen = Seen::default();
    let router = Router::new().with_state(seen.clone());
    let mut small = router.clone().on_batch_with(limits(2), see);
    let mut router = router.on_batch(see);
    assert!(are_done(&deliver(&mut router, [3, 1, 2]).await));
    assert_eq!(seen.taken(), [[3, 1, 2]]);
    assert!(are_done(&deliver(&mut router, [4]).await));
    assert_eq!(seen.taken(), [[4]], "one alone does not wait");
    assert!(are_done(&deliver(&mut small, 1..6).await));
    assert_eq!(seen.taken(), [&[1, 2][..], &[3, 4], &[5]]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_waits_for_others_where_it_may() {
    let seen = Seen::default();
    let settings = BatchSettings {
        records_max: 3,
        wait_max: Duration::from_secs(2),
    };
    let router = Router::new().on_batch_with(settings, see);
    let mut router = router.with_state(seen.clone());
    let began = tokio::time::Instant::now();
    let mut later = router.clone();
    let (first, second) = tokio::join!(deliver(&mut router, [1]), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        deliver(&mut later, [2]).await
    });
    assert!(are_done(&first) && are_done(&second));
    assert_eq!(seen.taken(), [[1, 2]]);
    assert_eq!(began.elapsed(), settings.wait_max);
    let began = tokio::time::Instant::now();
    tokio::join!(deliver(&mut router, [3]), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        deliver(&mut later, [4, 5]).await
    });
    assert_eq!(seen.taken(), [[3, 4, 5]]);
    assert_eq!(began.elapsed(), Duration::from_secs(1), "it is full");
}

#[tokio::test]
async fn deliveries_that_arrive_during_a_batch_form_the_next() {
    let seen = Seen::default();
    let gate = Arc::new(Semaphore::new(0));
    let handle = {
        let (seen, gate) = (seen.clone(), Arc::clone(&gate));
        move |events: Vec<Delivered<Paid>>| {
            let (seen, gate) = (seen.clone(), Arc::clone(&gate));
            async move {
                seen.see(&events);
                gate.acquire().await.expect("never closed").forget();
            }
        }
    };
    let mut router = Router::new().on_batch(handle);
    let mut first = router.clone();
    let first = tokio::spawn(async move { deliver(&mut first, [1, 2]).await });
    while seen.0.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let mut calls: Vec<_> = (3..7).map(|id| router.call(delivery(id, 1))).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    // The delivery timed out: it is in no batch.
    drop(calls.remove(1));
    gate.add_permits(2);
    assert!(are_done(&first.await.expect("no panic")));
    join_all(calls).await;
    assert_eq!(seen.taken(), [&[1, 2][..], &[3, 5, 6]]);
}

#[tokio::test]
async fn each_event_has_the_outcome_that_the_handler_returns() {
    let handle = async |events: Vec<Delivered<Paid>>| {
        let outcomes = events.iter().map(|paid| match paid.event.data.cents {
            1 => Outcome::Retry(HandlerError::outage("down")),
            2 => Outcome::Retry(HandlerError::permanent("refused")),
            3 => Outcome::Ignored,
            _ => Outcome::Done,
        });
        outcomes.collect::<Vec<_>>()
    };
    let mut router = Router::new()
        .on_batch(handle)
        .with_inbox(MemoryInbox::default());
    for (done, ignored) in [("Done", "Ignored"), ("Duplicate", "Duplicate")] {
        let outcomes = deliver(&mut router, 0..5).await;
        assert_eq!(format!("{:?}", outcomes[0]), done);
        assert_eq!(format!("{:?}", outcomes[3]), ignored);
        assert_eq!(format!("{:?}", outcomes[4]), done);
        let failed = classes(&outcomes[1..3]);
        assert_eq!(failed, [Class::Outage, Class::Permanent], "its own word");
    }
}

#[tokio::test]
async fn duplicates_are_answered_and_not_handled() {
    let seen = Seen::default();
    let router = Router::new().on_batch(see).with_state(seen.clone());
    let mut router = router.with_inbox(MemoryInbox::default());
    assert!(are_done(&deliver(&mut router, [2, 4]).await));
    // Event 3 is delivered twice at once.
    let outcomes = deliver(&mut router, [1, 2, 3, 3, 4, 5]).await;
    let are_duplicates = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Outcome::Duplicate));
    let are_duplicates: Vec<_> = are_duplicates.collect();
    assert_eq!(are_duplicates, [false, true, false, true, true, false]);
    assert_eq!(seen.taken(), [&[2, 4][..], &[1, 3, 5]]);
}

#[tokio::test]
async fn a_changed_router_shares_no_batch_with_its_original() {
    let (seen, other) = (Seen::default(), Seen::default());
    let mut router = Router::new().on_batch(see).with_state(seen.clone());
    let mut clone = router.clone();
    let mut changed = router.clone().with_state(other.clone());
    tokio::join!(
        deliver(&mut router, [1]),
        deliver(&mut clone, [2]),
        deliver(&mut changed, [3])
    );
    assert_eq!(seen.taken(), [[1, 2]], "a clone is the same router");
    assert_eq!(other.taken(), [[3]]);
}

#[tokio::test]
async fn the_needs_of_a_batch_handler_are_checked() {
    let refused = |router: Router| router.validate().expect_err("refused").to_string();
    for records_max in [0, RECORDS_MAX + 1] {
        let message = refused(Router::new().on_batch_with(limits(records_max), see));
        assert!(message.contains("records_max"), "{message}");
    }
    let message = refused(Router::new().on_batch(see));
    assert!(message.contains("Seen"), "{message}");
    let router = Router::new()
        .on_batch(transactions::pay)
        .with_state(Seen::default());
    let message = refused(router.with_inbox(MemoryInbox::default()));
    assert!(message.contains("transaction"), "{message}");
}
