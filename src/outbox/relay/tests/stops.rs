//! A relay that is stopped while its store does not answer.

use super::hand_over::{Running, Shop, WITHIN, ended, record, registered};
use super::slow_store::{Gate, SlowStore};
use crate::outbox::conformance::Writer;
use crate::outbox::store::Store;
use crate::outbox::{OutboxStore, Relay};
use crate::testing::eventually;
use tokio_util::sync::CancellationToken;

/// Starts a relay that drains after `stop`, until `drain_stop`.
fn start(
    shop: &Shop,
    store: &SlowStore,
    stop: &CancellationToken,
    drain_stop: &CancellationToken,
) -> Running {
    let relay = Relay::new(OutboxStore::of(store.clone()), shop.publisher());
    let running = relay.run_then_drain(stop.clone(), drain_stop.clone());
    tokio::spawn(Box::pin(running))
}

/// Waits until a call is at the gate.
async fn begun(gate: &Gate) {
    eventually("the call begins", WITHIN, || async {
        (gate.begun() > 0).then_some(())
    })
    .await;
}

/// A store may take a registration although nobody waits for it any more: the relay would be
/// registered after it has left.
#[tokio::test]
async fn a_stop_before_the_drain_lets_a_call_end() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 1, 0);
    let [stop, drain_stop] = [(); 2].map(|()| CancellationToken::new());
    let relay = start(&shop, &store, &stop, &drain_stop);
    begun(&store.register).await;
    stop.cancel();
    // The relay is a task of the same thread, and runs meanwhile.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.register.interrupted(), 0);
    store.register.open();
    let report = ended(relay).await;
    assert!(!report.handed_over, "{report:?}");
    registered(&outbox, 0).await;
}

#[tokio::test]
async fn the_end_of_the_drain_interrupts_a_call() {
    let shop = Shop::open().await;
    let store = SlowStore::new(shop.outbox().await, 1, 0);
    let [stop, drain_stop] = [(); 2].map(|()| CancellationToken::new());
    let relay = start(&shop, &store, &stop, &drain_stop);
    begun(&store.register).await;
    stop.cancel();
    drain_stop.cancel();
    ended(relay).await;
    assert_eq!(store.register.interrupted(), 1);
}

/// The first call waits when the relay is stopped, the second at its end.
#[tokio::test]
async fn a_last_call_without_an_answer_is_tried_again() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 0, 2);
    outbox.write(vec![record("k", 0)], true).await;
    let stop = CancellationToken::new();
    let relay = start(&shop, &store, &stop, &stop);
    begun(&store.delete).await;
    stop.cancel();
    let report = ended(relay).await;
    assert_eq!((report.published, report.unacknowledged), (1, 0));
    assert_eq!(store.delete.interrupted(), 2);
    let backlog = outbox.backlog().await.expect("an answer");
    assert_eq!(backlog.pending, 0, "the row is deleted");
}
