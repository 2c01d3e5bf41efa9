//! Every arrival order of a delivery, an order, its declined payment and its cancellation.

use super::*;
use crate::testing::{effect, effects, permutations, store};
use evenkeel::handler::{Class, default_classifier};
use shop_schemas::{LINES_MAX, OrderLine};
use sqlx::{Connection, SqliteConnection};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Received,
    Placed,
    Declined,
    Cancelled,
}

fn delivery(article: &str, quantity: u32) -> StockReceived {
    StockReceived {
        article: article.to_owned(),
        quantity,
        delivery_id: "d-1".to_owned(),
    }
}

fn order(order_id: &str, lines: &[(&str, u32)]) -> OrderPlaced {
    OrderPlaced {
        order_id: order_id.to_owned(),
        customer_id: "c-1".to_owned(),
        lines: lines
            .iter()
            .map(|(article, quantity)| OrderLine {
                article: (*article).to_owned(),
                quantity: *quantity,
                price_cents: 100,
            })
            .collect(),
        total_cents: 100,
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

async fn level(store: &mut SqliteConnection, article: &str) -> (i64, i64) {
    sqlx::query_as("SELECT available, reserved FROM stock WHERE article = ?")
        .bind(article)
        .fetch_optional(store)
        .await
        .unwrap()
        .unwrap_or((0, 0))
}

/// The events that were published about order `o-1` after these events.
async fn play(store: &mut SqliteConnection, events: &[Kind]) -> (Vec<Answer>, usize) {
    let mut answers = Vec::new();
    let mut releases = 0;
    for event in events {
        match event {
            Kind::Received => receive(store, effect("e-1"), &delivery("tea", 5))
                .await
                .unwrap(),
            Kind::Placed => {
                answers.extend(
                    reserve(store, effect("e-1"), &order("o-1", &[("tea", 5)]))
                        .await
                        .unwrap(),
                );
            }
            Kind::Declined | Kind::Cancelled => {
                let released = release(store, effect("e-1"), "o-1", "over").await.unwrap();
                releases += usize::from(released.is_some());
            }
        }
        assert_eq!(
            audit(store).await.unwrap(),
            [],
            "after {event:?} of {events:?}"
        );
    }
    assert_eq!(effects(store).await.len(), events.len(), "{events:?}");
    (answers, releases)
}

#[tokio::test]
async fn orders_are_answered_once_and_finished_orders_hold_no_stock() {
    use Kind::{Cancelled, Declined, Placed, Received};
    for kinds in [
        &[Received, Placed][..],
        &[Received, Placed, Cancelled],
        &[Received, Placed, Declined, Cancelled],
        &[Received, Placed, Placed, Cancelled],
    ] {
        for events in permutations(kinds) {
            let mut store = store(SCHEMA).await;
            let (answers, releases) = play(&mut store, &events).await;
            let at = |kind| events.iter().position(|event| *event == kind);
            let over = [at(Declined), at(Cancelled)].into_iter().flatten().min();
            let stocked = at(Received) < at(Placed);
            let barred = over.is_some_and(|over| Some(over) < at(Placed));
            assert_eq!(answers.len(), 1, "{events:?}");
            let reserved = matches!(answers[0], Answer::Reserved(_));
            assert_eq!(reserved, stocked && !barred, "{events:?}");
            assert_eq!(
                releases,
                usize::from(reserved && over.is_some()),
                "{events:?}"
            );
            let held = if reserved && over.is_none() { 5 } else { 0 };
            assert_eq!(
                level(&mut store, "tea").await,
                (5 - held, held),
                "{events:?}"
            );
        }
    }
}

#[tokio::test]
async fn an_order_is_reserved_completely_or_not_at_all() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    receive(&mut store, effect("e-1"), &delivery("rice", 1))
        .await
        .unwrap();
    let answer = reserve(
        &mut store,
        effect("e-1"),
        &order("o-1", &[("tea", 5), ("rice", 2), ("salt", 1)]),
    )
    .await;
    let Some(Answer::Rejected(rejected)) = answer.unwrap() else {
        panic!("there is not enough");
    };
    assert_eq!(rejected.article, "rice");
    assert_eq!(level(&mut store, "tea").await, (5, 0));
}

#[tokio::test]
async fn an_order_has_at_most_the_lines_of_its_schema() {
    let mut store = store(SCHEMA).await;
    let stocked = delivery("tea", 20_000);
    receive(&mut store, effect("e-1"), &stocked).await.unwrap();
    let lines = vec![("tea", 1); 10_000];
    // SQLite rejects the moves of 5,000 lines, and the look-up of 10,000.
    for too_many in [LINES_MAX + 1, 5_000, 10_000] {
        let order = order("o-1", &lines[..too_many]);
        let error = reserve(&mut store, effect("e-2"), &order)
            .await
            .expect_err("too many lines");
        assert_eq!(error.class(&default_classifier()), Class::Permanent);
        let reason = format!("the order has {too_many} lines; at most 1000 are allowed");
        assert_eq!(error.to_string(), reason);
    }
    assert_eq!(effects(&mut store).await, ["e-1"], "nothing is written");
    let most = order("o-1", &lines[..LINES_MAX]);
    let answer = reserve(&mut store, effect("e-2"), &most).await.unwrap();
    assert!(matches!(answer, Some(Answer::Reserved(_))), "{answer:?}");
    let released = release(&mut store, effect("e-3"), "o-1", "over").await;
    assert_eq!(released.unwrap().unwrap().lines.len(), LINES_MAX);
    assert_eq!(level(&mut store, "tea").await, (20_000, 0));
}

#[tokio::test]
async fn an_article_named_twice_is_asked_for_as_often() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    let twice = order("o-1", &[("tea", 3), ("tea", 3)]);
    let answer = reserve(&mut store, effect("e-1"), &twice).await.unwrap();
    assert!(matches!(answer, Some(Answer::Rejected(_))), "{answer:?}");
    let fits = order("o-2", &[("tea", 3), ("tea", 2)]);
    let answer = reserve(&mut store, effect("e-1"), &fits).await.unwrap();
    assert!(matches!(answer, Some(Answer::Reserved(_))), "{answer:?}");
    assert_eq!(level(&mut store, "tea").await, (0, 5));
    assert!(
        release(&mut store, effect("e-1"), "o-2", "over")
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(level(&mut store, "tea").await, (5, 0));
}

#[tokio::test]
async fn each_line_of_an_article_named_twice_is_a_move() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    let order = order("o-1", &[("tea", 1), ("tea", 2)]);
    let answer = reserve(&mut store, effect("e-2"), &order).await.unwrap();
    let Some(Answer::Reserved(reserved)) = answer else {
        panic!("{answer:?}");
    };
    let released = release(&mut store, effect("e-3"), "o-1", "over").await;
    assert_eq!(released.unwrap().unwrap().lines, reserved.lines);
    let moves: Vec<(String, i64, String)> =
        sqlx::query_as("SELECT kind, quantity, reference FROM stock_moves ORDER BY seq")
            .fetch_all(&mut store)
            .await
            .unwrap();
    let row =
        |kind: &str, quantity, reference: &str| (kind.to_owned(), quantity, reference.to_owned());
    let expected = [
        row("received", 5, "d-1"),
        row("reserved", 1, "o-1"),
        row("reserved", 2, "o-1"),
        row("released", 1, "o-1"),
        row("released", 2, "o-1"),
    ];
    assert_eq!(moves, expected);
    assert_eq!(audit(&mut store).await.unwrap(), []);
    assert_eq!(effects(&mut store).await, ["e-1", "e-2", "e-3"]);
}

#[tokio::test]
async fn repeated_events_are_journaled_and_change_nothing() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    let order = order("o-1", &[("tea", 2), ("salt", 0)]);
    for again in [false, true] {
        let answer = reserve(&mut store, effect("e-2"), &order).await.unwrap();
        assert_eq!(answer.is_none(), again, "{answer:?}");
        assert_eq!(level(&mut store, "tea").await, (3, 2));
    }
    for again in [false, true] {
        let released = release(&mut store, effect("e-3"), "o-1", "over").await;
        assert_eq!(released.unwrap().is_none(), again);
        assert_eq!(level(&mut store, "tea").await, (5, 0));
    }
    assert_eq!(effects(&mut store).await.len(), 5);
}

/// A level that is wrong already must not hide in a sum.
#[tokio::test]
async fn a_level_that_would_become_negative_fails_the_transaction() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    let order = order("o-1", &[("tea", 2)]);
    reserve(&mut store, effect("e-2"), &order).await.unwrap();
    sqlx::raw_sql("UPDATE stock SET reserved = 1")
        .execute(&mut store)
        .await
        .unwrap();
    let mut transaction = store.begin().await.unwrap();
    let released = release(&mut transaction, effect("e-3"), "o-1", "over").await;
    let message = released.unwrap_err().to_string();
    assert!(message.contains("CHECK"), "{message}");
    transaction.rollback().await.unwrap();
    assert_eq!(level(&mut store, "tea").await, (3, 1));
    assert_eq!(effects(&mut store).await, ["e-1", "e-2"]);
}

#[tokio::test]
async fn audit_finds_a_stock_level_changed_behind_its_back() {
    let mut store = store(SCHEMA).await;
    receive(&mut store, effect("e-1"), &delivery("tea", 5))
        .await
        .unwrap();
    sqlx::raw_sql("UPDATE stock SET available = available + 1")
        .execute(&mut store)
        .await
        .unwrap();
    let found = audit(&mut store).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].level, found[0].moves), ((6, 0), (5, 0)));
}

#[tokio::test]
async fn an_order_without_lines_is_refused() {
    let mut store = store(SCHEMA).await;
    assert!(
        reserve(&mut store, effect("e-1"), &order("o-1", &[]))
            .await
            .is_err()
    );
}
