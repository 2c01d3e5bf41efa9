//! Every arrival order of authorization, reservation and cancellation.

use super::*;
use crate::testing::{effect, effects, permutations, store};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Authorized,
    Reserved,
    Cancelled,
}

fn fact(kind: Kind) -> Fact {
    match kind {
        Kind::Authorized => Fact::Authorized("a-1".to_owned()),
        Kind::Reserved => Fact::Reserved(vec![ReservedLine {
            article: "tea".to_owned(),
            quantity: 2,
        }]),
        Kind::Cancelled => Fact::Barred("changed my mind".to_owned()),
    }
}

/// Complete means paid and reserved.
#[tokio::test]
async fn an_order_ships_once_if_complete_before_any_cancellation() {
    use Kind::{Authorized, Cancelled, Reserved};
    for kinds in [
        &[Authorized, Reserved][..],
        &[Authorized, Reserved, Cancelled],
        &[Authorized, Cancelled],
        &[Reserved, Cancelled],
    ] {
        for order in permutations(kinds) {
            let mut store = store(SCHEMA).await;
            let mut dispatched = Vec::new();
            // Each fact twice: a second one of a kind must change nothing.
            for kind in order.iter().flat_map(|kind| [kind, kind]) {
                dispatched.extend(
                    learn(&mut store, effect("e-1"), "o-1", fact(*kind))
                        .await
                        .unwrap(),
                );
            }
            let before_cancellation: Vec<_> = order
                .iter()
                .take_while(|kind| **kind != Cancelled)
                .collect();
            let complete = before_cancellation.len() == 2;
            assert_eq!(dispatched.len(), usize::from(complete), "{order:?}");
            let tracking: Option<String> = sqlx::query_scalar("SELECT tracking FROM shipments")
                .fetch_one(&mut store)
                .await
                .unwrap();
            let published = dispatched.pop().map(|dispatched| dispatched.tracking);
            assert_eq!(tracking, published, "{order:?}");
            assert_eq!(effects(&mut store).await.len(), 2 * order.len());
        }
    }
}

#[tokio::test]
async fn the_tracking_number_follows_from_the_order() {
    let mut numbers = Vec::new();
    for order_id in ["o-1", "o-1", "o-2"] {
        let mut store = store(SCHEMA).await;
        learn(&mut store, effect("e-1"), order_id, fact(Kind::Reserved))
            .await
            .unwrap();
        let dispatched = learn(&mut store, effect("e-1"), order_id, fact(Kind::Authorized))
            .await
            .unwrap();
        numbers.push(dispatched.unwrap().tracking);
    }
    assert_eq!(numbers[0], numbers[1]);
    assert_ne!(numbers[0], numbers[2]);
}

#[tokio::test]
async fn a_shipment_holds_the_reserved_lines() {
    let mut store = store(SCHEMA).await;
    learn(&mut store, effect("e-1"), "o-1", fact(Kind::Reserved))
        .await
        .unwrap();
    let dispatched = learn(&mut store, effect("e-1"), "o-1", fact(Kind::Authorized))
        .await
        .unwrap();
    let lines = dispatched.unwrap().lines;
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].article.as_str(), lines[0].quantity), ("tea", 2));
}
