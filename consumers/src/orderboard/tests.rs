//! The same facts give the same state in any order.

use super::*;
use crate::testing::{effect, effects, permutations, store};
use sqlx::SqliteConnection;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Placed,
    Paid,
    Declined,
    Reserved,
    Released,
    Cancelled,
    Shipped,
}

/// The event of a kind about an order.
fn event(kind: Kind, order_id: &str) -> Box<dyn Told> {
    let (order_id, reason) = (order_id.to_owned(), "because".to_owned());
    let (lines, amount_cents) = (Vec::new(), 100);
    match kind {
        Kind::Placed => {
            let [customer_id, placed_at] = ["c-1", "2026-01-01T00:00:00Z"].map(str::to_owned);
            let (lines, total_cents) = (Vec::new(), 100);
            Box::new(OrderPlaced {
                order_id,
                customer_id,
                lines,
                total_cents,
                placed_at,
            })
        }
        Kind::Paid => {
            let authorization = "a-1".to_owned();
            Box::new(PaymentAuthorized {
                order_id,
                amount_cents,
                authorization,
            })
        }
        Kind::Declined => Box::new(PaymentDeclined {
            order_id,
            amount_cents,
            reason,
        }),
        Kind::Reserved => Box::new(StockReserved { order_id, lines }),
        Kind::Released => Box::new(StockReleased {
            order_id,
            lines,
            reason,
        }),
        Kind::Cancelled => Box::new(OrderCancelled { order_id, reason }),
        Kind::Shipped => {
            let tracking = "t-1".to_owned();
            Box::new(ShipmentDispatched {
                order_id,
                tracking,
                lines,
            })
        }
    }
}

/// An event of any type, as its fact.
trait Told {
    fn told<'a>(&'a self, id: &'a str) -> NewFact<'a>;
}

impl<T: Telling> Told for T {
    fn told<'a>(&'a self, id: &'a str) -> NewFact<'a> {
        self.new_fact(effect(id), jiff::Timestamp::UNIX_EPOCH)
    }
}

/// Learns events of orders as one batch. Returns the state after each.
async fn tell(store: &mut SqliteConnection, batch: &[(Kind, &str)]) -> Vec<Result<State, String>> {
    let events: Vec<_> = batch
        .iter()
        .map(|(kind, order_id)| event(*kind, order_id))
        .collect();
    let facts: Vec<_> = events.iter().map(|event| event.told("e-1")).collect();
    learn(store, &facts).await.unwrap()
}

async fn state_of(store: &mut SqliteConnection, order_id: &str) -> Option<String> {
    let order = queries::order(store, order_id).await.unwrap();
    order.map(|order| order.state)
}

#[tokio::test]
async fn every_order_of_arrival_leads_to_the_same_state() {
    use Kind::{Cancelled, Declined, Paid, Placed, Released, Reserved, Shipped};
    for (kinds, expected) in [
        (&[Placed, Paid, Reserved, Shipped][..], State::Shipped),
        (&[Placed, Paid, Reserved], State::Ready),
        (&[Placed, Declined, Reserved, Released], State::Declined),
        (
            &[Placed, Cancelled, Paid, Reserved, Released],
            State::Cancelled,
        ),
        (
            &[Placed, Cancelled, Paid, Reserved, Shipped],
            State::Shipped,
        ),
    ] {
        for order in permutations(kinds) {
            let mut store = store(SCHEMA).await;
            let mut states = Vec::new();
            for kind in order.iter().flat_map(|kind| [kind, kind]) {
                states = tell(&mut store, &[(*kind, "o-1")]).await;
            }
            assert_eq!(states, [Ok(expected)], "{order:?}");
            assert_eq!(effects(&mut store).await.len(), 2 * kinds.len());
            let shown = queries::order(&mut store, "o-1").await.unwrap().unwrap();
            assert_eq!(shown.state, expected.as_str());
            assert_eq!(shown.facts.len(), kinds.len());
        }
    }
}

#[tokio::test]
async fn a_batch_may_contain_several_events_of_an_order() {
    use Kind::{Paid, Placed, Reserved, Shipped};
    let batch = [
        (Placed, "o-1"),
        (Placed, "o-2"),
        (Paid, "o-1"),
        (Paid, "o-1"),
        (Reserved, "o-1"),
    ];
    let mut store = store(SCHEMA).await;
    let [placed, ready] = [State::Placed, State::Ready];
    let expected = [ready, placed, ready, ready, ready].map(Ok);
    assert_eq!(tell(&mut store, &batch).await, expected);
    assert_eq!(state_of(&mut store, "o-1").await.as_deref(), Some("ready"));
    assert_eq!(state_of(&mut store, "o-2").await.as_deref(), Some("placed"));
    assert_eq!(effects(&mut store).await.len(), batch.len());
    let later = tell(&mut store, &[(Shipped, "o-1"), (Paid, "o-2")]).await;
    assert_eq!(later, [Ok(State::Shipped), Ok(State::Paid)]);
    let shown = queries::order(&mut store, "o-1").await.unwrap().unwrap();
    assert_eq!(shown.facts.len(), 4);
}

/// The store of a newer version may contain such a fact.
#[tokio::test]
async fn an_unknown_fact_fails_only_the_events_of_its_order() {
    use Kind::{Paid, Placed};
    let mut store = store(SCHEMA).await;
    sqlx::raw_sql("INSERT INTO facts VALUES ('o-1', 'insured', '', '')")
        .execute(&mut store)
        .await
        .unwrap();
    let states = tell(&mut store, &[(Placed, "o-1"), (Placed, "o-2")]).await;
    let reason = states[0].as_ref().unwrap_err();
    assert!(reason.contains("insured"), "{reason}");
    assert_eq!(states[1], Ok(State::Placed));
    assert_eq!(state_of(&mut store, "o-1").await, None);
    assert_eq!(effects(&mut store).await.len(), 1);
    assert!(tell(&mut store, &[(Paid, "o-1")]).await[0].is_err());
    assert_eq!(effects(&mut store).await.len(), 1);
}

#[test]
fn the_state_is_the_last_that_the_facts_allow() {
    use Fact::{Cancelled, Declined, Paid, Placed, Rejected, Released, Reserved, Shipped};
    for (facts, expected) in [
        (&[Placed][..], State::Placed),
        (&[Paid], State::Paid),
        (&[Placed, Reserved], State::Reserved),
        (&[Placed, Paid, Rejected], State::Rejected),
        (&[Placed, Reserved, Released], State::Released),
        (&[Placed, Rejected, Declined], State::Declined),
        (&[Placed, Declined, Cancelled], State::Cancelled),
        (&[Placed, Shipped, Cancelled, Released], State::Shipped),
    ] {
        assert_eq!(State::of(facts), expected, "{facts:?}");
    }
}

#[test]
fn every_name_reads_back() {
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(*state));
    }
    assert!("shiped".parse::<State>().is_err());
}
