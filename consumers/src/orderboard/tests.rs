//! The same facts give the same state in any order.

use super::*;
use crate::testing::{permutations, store};

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

async fn tell(store: &mut SqliteConnection, kind: Kind) -> State {
    let (order_id, reason) = ("o-1".to_owned(), "because".to_owned());
    let (lines, amount_cents) = (Vec::new(), 100);
    let at = jiff::Timestamp::UNIX_EPOCH;
    let told = match kind {
        Kind::Placed => {
            let (customer_id, placed_at) = ("c-1".to_owned(), at.to_string());
            let (lines, total_cents) = (Vec::new(), 100);
            let event = OrderPlaced {
                order_id,
                customer_id,
                lines,
                total_cents,
                placed_at,
            };
            learn(store, &event, at).await
        }
        Kind::Paid => {
            let authorization = "a-1".to_owned();
            learn(
                store,
                &PaymentAuthorized {
                    order_id,
                    amount_cents,
                    authorization,
                },
                at,
            )
            .await
        }
        Kind::Declined => {
            learn(
                store,
                &PaymentDeclined {
                    order_id,
                    amount_cents,
                    reason,
                },
                at,
            )
            .await
        }
        Kind::Reserved => learn(store, &StockReserved { order_id, lines }, at).await,
        Kind::Released => {
            learn(
                store,
                &StockReleased {
                    order_id,
                    lines,
                    reason,
                },
                at,
            )
            .await
        }
        Kind::Cancelled => learn(store, &OrderCancelled { order_id, reason }, at).await,
        Kind::Shipped => {
            let tracking = "t-1".to_owned();
            learn(
                store,
                &ShipmentDispatched {
                    order_id,
                    tracking,
                    lines,
                },
                at,
            )
            .await
        }
    };
    told.unwrap()
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
            let mut state = None;
            for kind in order.iter().flat_map(|kind| [kind, kind]) {
                state = Some(tell(&mut store, *kind).await);
            }
            assert_eq!(state, Some(expected), "{order:?}");
            let shown = queries::order(&mut store, "o-1").await.unwrap().unwrap();
            assert_eq!(shown.state, expected.as_str());
            assert_eq!(shown.facts.len(), kinds.len());
        }
    }
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
