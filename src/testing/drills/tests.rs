use super::*;
use crate::event::test_record::received_event;
use crate::event::{Event, EventType};
use crate::handler::{Delivered, Delivery, DeliveryScope, HandlerError, Outcome, Router};
use crate::inbox::{BoxFuture, InboxError, MemoryInbox, SqliteInbox, SqliteTx};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tower::{Service, ServiceExt};

#[derive(serde::Serialize, serde::Deserialize)]
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

fn delivery(id: usize) -> Delivery {
    let record = received_event("/test", id as i64, &Paid { cents: 5 });
    Delivery::new(record, 1, Arc::new(DeliveryScope::new("group")))
}

/// Delivers `events` events, each until it is handled.
async fn run<S>(service: S, events: usize)
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: std::fmt::Debug,
{
    deliver_all(service, 0..events).await;
}

async fn deliver_all<S>(mut service: S, ids: std::ops::Range<usize>)
where
    S: Service<Delivery, Response = Outcome>,
    S::Error: std::fmt::Debug,
{
    for id in ids {
        let mut attempts = 0;
        loop {
            let ready = service.ready().await.expect("ready");
            let outcome = ready.call(delivery(id)).await.expect("an outcome");
            attempts += 1;
            match outcome {
                Outcome::Done | Outcome::Duplicate => break,
                Outcome::Retry(_) if attempts < 100 => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn handler(report: &DrillReport) -> &HandlerReport {
    report.handlers.get(Paid::TYPE).expect("it was drilled")
}

#[tokio::test]
async fn a_handler_without_an_inbox_is_named_for_duplicates() {
    let drills = Drills::seeded(1).deliver_twice();
    let router = Router::new().on(async |_: Event<Paid>| ());
    run(drills.wrap(router), 30).await;
    let error = drills.report().check().expect_err("it ran twice");
    let message = error.to_string();
    assert!(message.contains(Paid::TYPE), "{message}");
    assert!(message.contains("30 events"), "{message}");
    assert!(message.contains("(0, 1, 2,"), "{message}");
}

#[tokio::test]
async fn an_inbox_suppresses_duplicates_and_late_answers() {
    let drills = Drills::seeded(2).deliver_twice().lose_answers(0.3);
    let router = Router::new().on(async |_: Event<Paid>| ());
    let router = router.with_inbox(drills.inbox(MemoryInbox::default()));
    run(drills.wrap(router), 100).await;
    let report = drills.report();
    report.check().expect("idempotent");
    let handler = handler(&report);
    assert_eq!((handler.started, handler.completed), (100, 100));
    assert!(handler.suppressed > 110, "{handler:?}");
}

/// An inbox that forgets every tenth delivery.
struct Forgetful(MemoryInbox, AtomicU64);

impl crate::inbox::Inbox for Forgetful {
    fn claim<'a>(
        &'a self,
        key: &'a crate::inbox::InboxKey,
    ) -> BoxFuture<'a, Result<crate::inbox::Claimed, InboxError>> {
        Box::pin(async move {
            let mut key = key.clone();
            if self.1.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                key.source = "/forgotten".to_owned();
            }
            self.0.claim(&key).await
        })
    }

    fn transaction_type(&self) -> Option<std::any::TypeId> {
        None
    }

    fn sent(&self, _: &crate::inbox::InboxKey) {}
}

#[tokio::test]
async fn an_inbox_that_forgets_is_detected() {
    let drills = Drills::seeded(3).deliver_twice();
    let inbox = Forgetful(MemoryInbox::default(), AtomicU64::new(1));
    let router = Router::new().on(async |_: Event<Paid>| ());
    let router = router.with_inbox(drills.inbox(inbox));
    run(drills.wrap(router), 100).await;
    let error = drills.report().check().expect_err("it ran again");
    assert_eq!(error.handlers[Paid::TYPE].ran_again_count, 20);
}

const BALANCE: &str = "
    CREATE TABLE IF NOT EXISTS balance (cents INTEGER NOT NULL);
    INSERT INTO balance SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM balance)";

async fn sqlite() -> (tempfile::TempDir, SqliteInbox) {
    let folder = tempfile::tempdir().expect("a temporary folder is created");
    let path = folder.path().join("store.db");
    let inbox = SqliteInbox::open(&path, "group", BALANCE).await;
    (folder, inbox.expect("a store"))
}

async fn balance(inbox: &SqliteInbox) -> i64 {
    let balance = sqlx::query_scalar("SELECT cents FROM balance");
    balance
        .fetch_one(inbox.pool())
        .await
        .expect("the query returns a row")
}

async fn pay(event: Event<Paid>, mut tx: SqliteTx) -> Result<(), HandlerError> {
    let update = sqlx::query("UPDATE balance SET cents = cents + ?").bind(event.data.cents);
    update.execute(&mut *tx).await?;
    Ok(())
}

#[tokio::test]
async fn a_transactional_effect_adds_up_under_all_drills() {
    let (_folder, inbox) = sqlite().await;
    let seen = inbox.clone();
    let drills = Drills::seeded(4)
        .deliver_twice()
        .refuse_commits(0.3)
        .lose_answers(0.2)
        .with_effect_probe(move || {
            let seen = seen.clone();
            async move { balance(&seen).await.to_string() }
        });
    let router = Router::new()
        .on(pay)
        .with_inbox(drills.inbox(inbox.clone()));
    run(drills.wrap(router), 100).await;
    let report = drills.report();
    report.check().expect("idempotent");
    assert!(handler(&report).refused > 20, "{report:?}");
    assert_eq!(balance(&inbox).await, 500);
}

#[tokio::test]
async fn a_batch_adds_up_whatever_is_refused_lost_or_twice() {
    let (_folder, inbox) = sqlite().await;
    let drills = Drills::seeded(8)
        .deliver_twice()
        .refuse_commits(0.3)
        .lose_answers(0.2);
    let pay_all = async |paid: Vec<Delivered<Paid>>, mut tx: SqliteTx| {
        let cents: i64 = paid.iter().map(|paid| paid.event.data.cents).sum();
        let update = sqlx::query("UPDATE balance SET cents = cents + ?").bind(cents);
        update.execute(&mut *tx).await?;
        Ok::<_, HandlerError>(())
    };
    let router = Router::new()
        .on_batch(pay_all)
        .with_inbox(drills.inbox(inbox.clone()));
    let service = drills.wrap(router);
    let runs = (0..5).map(|run| deliver_all(service.clone(), run * 20..(run + 1) * 20));
    futures_util::future::join_all(runs).await;
    let report = drills.report();
    report.check().expect("idempotent");
    assert!(handler(&report).refused > 20, "{report:?}");
    assert_eq!(balance(&inbox).await, 500);
}

#[tokio::test]
async fn a_refused_commit_reveals_an_effect_beside_the_transaction() {
    let (_folder, inbox) = sqlite().await;
    let sent = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&sent);
    let drills = Drills::seeded(5)
        .refuse_commits(0.3)
        .with_effect_probe(move || {
            let sent = seen.load(Ordering::Relaxed).to_string();
            std::future::ready(sent)
        });
    let mail = Arc::clone(&sent);
    let handle = move |_: Event<Paid>| {
        mail.fetch_add(1, Ordering::Relaxed);
        async {}
    };
    let router = Router::new().on(handle).with_inbox(drills.inbox(inbox));
    run(drills.wrap(router), 50).await;
    let error = drills.report().check().expect_err("mails were sent again");
    let report = &error.handlers[Paid::TYPE];
    assert_eq!(report.changed_count, report.refused);
    assert!(
        error
            .to_string()
            .contains("through the store's transaction")
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_or_stopped_store_costs_only_time() {
    let drills = Drills::seeded(6)
        .slow_store(Duration::from_millis(10))
        .store_down(5, Duration::from_millis(200));
    let router = Router::new().on(async |_: Event<Paid>| ());
    let router = router.with_inbox(drills.inbox(MemoryInbox::default()));
    let began = Instant::now();
    run(drills.wrap(router), 20).await;
    let report = drills.report();
    assert_eq!(handler(&report).completed, 20);
    let least = Duration::from_millis(200 + 20 * 20);
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_held_back_comes_later() {
    let hold = Duration::from_secs(3);
    let drills = Drills::seeded(7).delay_results(0.5, hold);
    let began = Instant::now();
    run(drills.wrap(Router::new().on(async |_: Event<Paid>| ())), 20).await;
    let held = began.elapsed().as_secs_f64() / hold.as_secs_f64();
    assert!((5.0..15.0).contains(&held), "{held} of 20");
}
