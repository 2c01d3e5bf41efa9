use super::settings::RECORDS_MAX;
use super::*;
use crate::event::{EventType, Headers, RecordBatchBuilder};
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
    let mut headers = Headers::new();
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &*id.to_string()),
        ("ce_source", "/test"),
        ("ce_type", Paid::TYPE),
        ("content-type", "application/json"),
    ] {
        headers.push(name, Some(value.as_bytes()));
    }
    let mut batch = RecordBatchBuilder::new();
    let source = batch.source(Paid::TOPIC.into(), 0);
    let value = format!("{{\"cents\":{id}}}");
    let value = Some(value.as_bytes());
    batch.push(source, id, 0, None, value, headers.iter());
    let record = batch.build(None).record(0).expect("pushed");
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

/// Fails while the event 2 is in the batch.
async fn refuse_2(
    events: Vec<Delivered<Paid>>,
    State(seen): State<Seen>,
) -> Result<(), HandlerError> {
    seen.see(&events);
    match events.iter().any(|paid| paid.event.data.cents == 2) {
        true => Err(HandlerError::permanent("2 is refused")),
        false => Ok(()),
    }
}

#[tokio::test]
async fn events_of_a_failed_batch_are_retried_alone() {
    let seen = Seen::default();
    let router = Router::new().on_batch(refuse_2).with_state(seen.clone());
    let mut router = router.with_inbox(MemoryInbox::default());
    let outcomes = deliver(&mut router, [1, 2, 3]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 3]);
    let again = deliver_again(&mut router, [1, 2, 3], 2).await;
    assert!(are_done(&again[..1]) && are_done(&again[2..]));
    assert_eq!(classes(&again[1..2]), [Class::Permanent], "it is alone");
    assert_eq!(seen.taken(), [&[1, 2, 3][..], &[1], &[2], &[3]]);
    let alone = deliver(&mut router, [2]).await;
    assert_eq!(classes(&alone), [Class::Permanent]);
}

#[tokio::test]
async fn an_unclassified_batch_error_dead_letters_no_neighbour() {
    let handle = async |_: Vec<Delivered<Paid>>| -> Result<(), HandlerError> {
        serde_json::from_str::<u32>("{").map(drop)?;
        Ok(())
    };
    let mut router = Router::new().on_batch(handle);
    let alone = classes(&deliver(&mut router, [1]).await);
    assert_eq!(alone, [Class::Permanent], "the classifier's word");
    let together = classes(&deliver(&mut router, [1, 2]).await);
    assert_eq!(together, [Class::Transient; 2]);
}

#[tokio::test]
async fn a_wrong_number_of_outcomes_fails_the_batch() {
    for count in [0, 2, 4] {
        let handle = move |_: Vec<Delivered<Paid>>| async move {
            (0..count).map(|_| Outcome::Done).collect::<Vec<_>>()
        };
        let mut router = Router::new()
            .on_batch(handle)
            .with_inbox(MemoryInbox::default());
        for _ in 0..2 {
            let outcomes = deliver(&mut router, 0..3).await;
            assert_eq!(classes(&outcomes), [Class::Transient; 3]);
        }
        let outcomes = deliver(&mut router, [7]).await;
        assert_eq!(classes(&outcomes), [Class::Permanent]);
        let message = format!("{:?}", outcomes[0]);
        assert!(message.contains("outcomes for 1 events"), "{message}");
    }
}

#[tokio::test]
async fn a_panic_dead_letters_its_own_event_only() {
    let handle = async |events: Vec<Delivered<Paid>>| {
        let found = events.iter().any(|paid| paid.event.data.cents == 2);
        assert!(!found, "2 is too much");
    };
    let mut router = Router::new()
        .on_batch(handle)
        .with_inbox(MemoryInbox::default());
    let outcomes = deliver(&mut router, [1, 2]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 2]);
    let again = deliver_again(&mut router, [1, 2], 2).await;
    assert!(are_done(&again[..1]));
    let Outcome::Dead(reason) = &again[1] else {
        panic!("{again:?}");
    };
    assert_eq!(reason.stage, Stage::Panic);
    assert!(reason.message.contains("2 is too much"), "{reason:?}");
}

/// Records its drop.
struct SignalOnDrop(Arc<Semaphore>);

impl Drop for SignalOnDrop {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

/// The next batch runs, and may claim the same deliveries.
#[tokio::test]
async fn a_batch_of_timed_out_deliveries_is_cancelled() {
    let (started, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (start, end) = (Arc::clone(&started), Arc::clone(&ended));
    let handle = move |events: Vec<Delivered<Paid>>| {
        let signal = SignalOnDrop(Arc::clone(&end));
        start.add_permits(1);
        async move {
            let _signal = signal;
            if events.iter().any(|paid| paid.event.data.cents == 1) {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut router = Router::new()
        .on_batch(handle)
        .with_inbox(MemoryInbox::default());
    let mut calls: Vec<_> = (1..3).map(|id| router.call(delivery(id, 1))).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call).is_pending());
    }
    started.acquire().await.expect("never closed").forget();
    drop(calls.pop());
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ended.available_permits(), 0, "one waits still");
    drop(calls);
    let given_up = within(ended.acquire()).await;
    given_up.expect("never closed").forget();
    let again = deliver(&mut router, [2]).await;
    assert!(are_done(&again), "its claim was given back");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_batch_does_not_use_the_handlers_time() {
    let slow = async |events: Vec<Delivered<Paid>>, State(seen): State<Seen>| {
        seen.see(&events);
        // Three batches run one after the other, each within its own timeout.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if events.iter().any(|paid| paid.event.data.cents == 5) {
            std::future::pending::<()>().await;
        }
    };
    let seen = Seen::default();
    let router = Router::new().with_state(seen.clone());
    let router = router.on_batch_with(limits(2), slow);
    let limit = Some(Duration::from_secs(3));
    let calls = (0..6).map(|id| {
        let mut delivery = delivery(id, 1);
        let scope = DeliveryScope {
            handler_timeout: limit,
            ..DeliveryScope::clone(&delivery.scope)
        };
        delivery.scope = Arc::new(scope);
        let mut handler = crate::handler::Limited::new(router.clone(), limit);
        async move { handler.call(delivery).await }
    });
    let outcomes = within(join_all(calls)).await;
    let outcomes: Vec<_> = outcomes.into_iter().map(|Ok(outcome)| outcome).collect();
    assert!(are_done(&outcomes[..4]), "{outcomes:?}");
    assert_eq!(classes(&outcomes[4..]), [Class::Timeout; 2]);
    let stage = |outcome: &Outcome| match outcome {
        Outcome::Retry(error) => error.stage(),
        other => panic!("{other:?}"),
    };
    assert_eq!(stage(&outcomes[5]), crate::handler::Stage::Timeout);
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

const TABLE: &str = "CREATE TABLE IF NOT EXISTS paid (cents INTEGER NOT NULL)";

async fn sqlite() -> (tempfile::TempDir, SqliteInbox) {
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let path = folder.path().join("store.db");
    let inbox = SqliteInbox::open(&path, "group", TABLE).await;
    (folder, inbox.expect("a store"))
}

async fn paid(inbox: &SqliteInbox) -> Vec<i64> {
    let paid = sqlx::query_scalar("SELECT cents FROM paid ORDER BY cents");
    paid.fetch_all(inbox.pool())
        .await
        .expect("the query returns its rows")
}

/// Writes a row for each event, except for amounts above 10, which fail. A batch with the event 0
/// fails as a whole.
async fn pay(
    events: Vec<Delivered<Paid>>,
    mut tx: SqliteTx,
    State(seen): State<Seen>,
) -> Result<Vec<Outcome>, HandlerError> {
    seen.see(&events);
    let mut outcomes = Vec::new();
    for paid in events {
        let cents = paid.event.data.cents;
        outcomes.push(if cents > 10 {
            Outcome::Retry(HandlerError::transient("too much"))
        } else {
            let insert = sqlx::query("INSERT INTO paid VALUES (?)").bind(cents);
            insert.execute(&mut *tx).await?;
            Outcome::Done
        });
        if cents == 0 {
            return Err(HandlerError::transient("nothing"));
        }
    }
    Ok(outcomes)
}

#[tokio::test]
async fn a_batch_has_one_transaction_and_failed_events_stay_fresh() {
    let (_folder, inbox) = sqlite().await;
    let seen = Seen::default();
    let router = Router::new().on_batch(pay).with_state(seen.clone());
    let mut router = router.with_inbox(inbox.clone());
    router.validate().expect("it has what it needs");
    for _ in 0..2 {
        let outcomes = deliver(&mut router, [1, 11, 2]).await;
        assert_eq!(classes(&outcomes[1..2]), [Class::Transient]);
        assert_eq!(paid(&inbox).await, [1, 2]);
    }
    assert_eq!(seen.taken(), [&[1, 11, 2][..], &[11]]);
    let outcomes = deliver(&mut router, [3, 0, 4]).await;
    assert_eq!(classes(&outcomes), [Class::Transient; 3]);
    assert_eq!(paid(&inbox).await, [1, 2], "all of it is undone");
    assert!(are_done(&deliver(&mut router, [3, 4]).await));
    assert_eq!(paid(&inbox).await, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_failed_commit_completes_none_and_keeps_earlier_outcomes() {
    let (_folder, inbox) = sqlite().await;
    let handle = async |events: Vec<Delivered<Paid>>, mut tx: SqliteTx| {
        sqlx::raw_sql("ROLLBACK").execute(&mut *tx).await?;
        let outcomes = events.iter().map(|paid| match paid.event.data.cents {
            11 => Outcome::Retry(HandlerError::permanent("too much")),
            _ => Outcome::Done,
        });
        Ok::<_, HandlerError>(outcomes.collect::<Vec<_>>())
    };
    let mut router = Router::new().on_batch(handle).with_inbox(inbox);
    for _ in 0..2 {
        let outcomes = deliver(&mut router, [1, 11, 2]).await;
        let expected = [Class::Transient, Class::Permanent, Class::Transient];
        assert_eq!(classes(&outcomes), expected);
        let message = format!("{:?}", outcomes[0]);
        assert!(message.contains("misused"), "{message}");
    }
}

#[tokio::test]
async fn a_batch_handler_that_names_no_transaction_holds_none() {
    async fn wait(_: Vec<Delivered<Paid>>, State(gate): State<Arc<Semaphore>>) {
        let _ = gate.acquire().await;
    }
    let (_folder, inbox) = sqlite().await;
    let gate = Arc::new(Semaphore::new(0));
    let router = Router::new().on_batch(wait).with_state(Arc::clone(&gate));
    let mut router = router.with_inbox(inbox.clone());
    let other = InboxKey {
        group: "group".to_owned(),
        handler: "another".to_owned(),
        source: "/test".to_owned(),
        id: "1".to_owned(),
        content: None,
    };
    let beside = async {
        let Ok(Claimed::Fresh(claim)) = inbox.claim(&other).await else {
            panic!("it is new");
        };
        claim
            .complete(Vec::new())
            .await
            .expect("the claim completes");
        gate.add_permits(1);
    };
    let (outcomes, ()) = tokio::join!(deliver(&mut router, [1, 2, 3]), within(beside));
    assert!(are_done(&outcomes), "{outcomes:?}");
    let again = deliver(&mut router, [1, 2, 3]).await;
    let mut again = again.iter();
    assert!(again.all(|outcome| matches!(outcome, Outcome::Duplicate)));
}

/// A transactional store without support for batches.
struct Single(SqliteInbox);

impl Inbox for Single {
    fn claim<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> crate::inbox::BoxFuture<'a, Result<Claimed, InboxError>> {
        self.0.claim(key)
    }

    fn sent(&self, key: &InboxKey) {
        self.0.sent(key);
    }

    fn transaction_type(&self) -> Option<TypeId> {
        self.0.transaction_type()
    }
}

#[tokio::test]
async fn without_batch_support_a_transactional_store_handles_events_singly() {
    let (_folder, inbox) = sqlite().await;
    let seen = Seen::default();
    let router = Router::new().on_batch(pay).with_state(seen.clone());
    let mut router = router.with_inbox(Single(inbox.clone()));
    assert!(are_done(&deliver(&mut router, [1, 2, 3]).await));
    assert_eq!(seen.taken(), [[1], [2], [3]]);
    assert_eq!(paid(&inbox).await, [1, 2, 3]);
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
    let router = Router::new().on_batch(pay).with_state(Seen::default());
    let message = refused(router.with_inbox(MemoryInbox::default()));
    assert!(message.contains("transaction"), "{message}");
}

/// An event whose drop panics if its amount is unlucky.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Touchy {
    cents: i64,
}

impl EventType for Touchy {
    const TYPE: &'static str = Paid::TYPE;
    const TOPIC: &'static str = Paid::TOPIC;

    fn key(&self) -> String {
        "account".to_owned()
    }
}

impl Drop for Touchy {
    fn drop(&mut self) {
        assert!(self.cents != 13, "unlucky");
    }
}

#[tokio::test]
async fn a_panic_outside_the_handler_fails_the_batch_without_outage() {
    let forget = async |events: Vec<Delivered<Touchy>>| {
        events.into_iter().for_each(std::mem::forget);
    };
    let mut router = Router::new()
        .on_batch(forget)
        .with_inbox(MemoryInbox::default());
    assert!(are_done(&deliver(&mut router, [13]).await));
    // The batch itself drops it as a duplicate.
    let outcomes = deliver(&mut router, [13, 14]).await;
    assert!(matches!(outcomes[0], Outcome::Duplicate), "it is known");
    assert_eq!(classes(&outcomes[1..]), [Class::Transient]);
    assert!(are_done(&deliver(&mut router, [15]).await), "the next runs");
}
