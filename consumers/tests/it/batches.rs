//! `notifications` and `orderboard` handle events in batches, each with one effect, on a store in a
//! file.

use evenkeel::event::{ContentMode, Event, EventType, RecordBatchBuilder, encode};
use evenkeel::handler::{Delivery, DeliveryScope, Outcome, Router};
use evenkeel::inbox::{SqliteInbox, SqliteSettings};
use shop_consumers::daemon::Service;
use shop_consumers::orderboard::queries;
use shop_consumers::{effect_journal, notifications, orderboard};
use shop_schemas::{OrderPlaced, PaymentAuthorized};
use std::path::Path;
use std::sync::Arc;
use tower::ServiceExt;

const ORDERS: i64 = 20;

async fn router(service: &Service, store: &Path) -> Router {
    let schema = [effect_journal::SCHEMA, service.schema].concat();
    let settings = SqliteSettings::new(service.name, &schema);
    let inbox = SqliteInbox::open_with(store, &settings).await.unwrap();
    (service.handlers)(Router::new()).with_inbox(inbox)
}

fn placed(order: i64) -> OrderPlaced {
    OrderPlaced {
        order_id: format!("o-{order}"),
        customer_id: "c-1".to_owned(),
        lines: Vec::new(),
        total_cents: 100,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn paid(order: i64) -> PaymentAuthorized {
    PaymentAuthorized {
        order_id: format!("o-{order}"),
        amount_cents: 100,
        authorization: "a-1".to_owned(),
    }
}

/// The delivery of an event whose id follows from its offset.
fn delivery<T: EventType>(data: T, offset: i64) -> Delivery {
    let mut event = Event::new("/test", data);
    event.attributes.id = format!("{}-{offset}", T::TYPE);
    let sent = encode(&event, ContentMode::Binary, None).unwrap();
    let mut batch = RecordBatchBuilder::new();
    let source = batch.source(T::TOPIC.into(), 0);
    let (key, value) = (sent.key.as_deref(), sent.value.as_deref());
    batch.push(source, offset, 1, key, value, sent.headers.iter());
    let record = batch.build(None).record(0).unwrap();
    Delivery::new(record, 1, Arc::new(DeliveryScope::new("test")))
}

/// An event of each order, and a second one of the last order.
fn deliveries() -> Vec<Delivery> {
    let orders = (0..ORDERS).map(|order| delivery(placed(order), order));
    orders.chain([delivery(paid(ORDERS - 1), 0)]).collect()
}

/// Delivers events together.
async fn deliver(router: &Router, deliveries: Vec<Delivery>) -> Vec<Outcome> {
    let handled = deliveries
        .into_iter()
        .map(|delivery| tokio::spawn(router.clone().oneshot(delivery)));
    let handled: Vec<_> = handled.collect();
    let mut outcomes = Vec::new();
    for handled in handled {
        let Ok(outcome) = handled.await.unwrap();
        outcomes.push(outcome);
    }
    outcomes
}

async fn count(store: &Path, sql: &'static str) -> i64 {
    let mut store = queries::open(store).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut store).await.unwrap()
}

#[tokio::test]
async fn each_event_has_one_effect_although_it_is_delivered_again() {
    for (service, rows) in [
        (notifications::SERVICE, "SELECT count(*) FROM messages"),
        (orderboard::SERVICE, "SELECT count(*) FROM facts"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("service.db");
        let router = router(&service, &store).await;
        for again in [false, true] {
            let outcomes = deliver(&router, deliveries()).await;
            let as_expected = outcomes.iter().all(|outcome| match outcome {
                Outcome::Done => !again,
                Outcome::Duplicate => again,
                _ => false,
            });
            assert!(as_expected, "{}: {outcomes:?}", service.name);
            assert_eq!(count(&store, rows).await, ORDERS + 1);
            let effects = "SELECT count(DISTINCT id) + count(*) FROM effects";
            assert_eq!(count(&store, effects).await, 2 * (ORDERS + 1));
        }
    }
}

#[tokio::test]
async fn an_unknown_fact_fails_its_own_event_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("orderboard.db");
    let router = router(&orderboard::SERVICE, &path).await;
    let mut store = queries::open(&path).await.unwrap();
    sqlx::raw_sql("INSERT INTO facts VALUES ('o-7', 'insured', '', '')")
        .execute(&mut store)
        .await
        .unwrap();
    let outcomes = deliver(&router, deliveries()).await;
    for (at, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Done => assert_ne!(at, 7),
            Outcome::Retry(error) => {
                assert_eq!(at, 7);
                assert!(error.to_string().contains("insured"), "{error}");
            }
            other => panic!("{at}: {other:?}"),
        }
    }
    let effects = "SELECT count(*) FROM effects";
    assert_eq!(count(&path, effects).await, ORDERS);
    let states = "SELECT count(*) FROM orders WHERE order_id = 'o-7'";
    assert_eq!(count(&path, states).await, 0);
}
