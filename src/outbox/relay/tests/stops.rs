//! A relay that is stopped while its store does not answer.

use super::hand_over::{
    LONG_LEASE, Running, Shop, WITHIN, ended, publisher_to, record, registered,
};
use super::slow_store::{Gate, SlowStore};
use crate::kafka::KafkaConfig;
use crate::outbox::conformance::Writer;
use crate::outbox::store::Store;
use crate::outbox::{OutboxStore, Relay, RelaySettings};
use crate::testing::eventually;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The time for the last results. A call may take a third of it.
const LAST_RESULTS: Duration = Duration::from_secs(6);

/// A quarter of the lease is longer than a test: no call before the end reaches its limit.
fn settings() -> RelaySettings {
    RelaySettings::default().with_lease(LONG_LEASE * 10)
}

/// Starts a relay that drains after `stop`, until `drain_stop`.
fn start(
    shop: &Shop,
    store: &SlowStore,
    stop: &CancellationToken,
    drain_stop: &CancellationToken,
) -> Running {
    let relay = Relay::new(OutboxStore::of(store.clone()), shop.publisher())
        .with_settings(settings().with_last_results_within(LAST_RESULTS));
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

/// The other relay hands over after this one has found the outbox empty.
#[tokio::test]
async fn a_relay_that_has_drained_publishes_what_was_left_to_it_meanwhile() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 0, 0);
    store.deregister.hold_next();
    let [stop, drain_stop] = [(); 2].map(|()| CancellationToken::new());
    let relay = start(&shop, &store, &stop, &drain_stop);
    registered(&outbox, 1).await;
    stop.cancel();
    begun(&store.deregister).await;
    outbox.write(vec![record("k", 0)], true).await;
    let other = outbox.register("other", LONG_LEASE).await;
    other.expect("registered");
    let left = outbox.leave_to_another("other").await;
    assert!(left.expect("an answer"), "the relay is registered");
    store.deregister.open();
    let report = ended(relay).await;
    assert!(!report.handed_over, "{report:?}");
    assert_eq!(shop.published().await, [0]);
    registered(&outbox, 0).await;
}

/// A lease that is taken after the release would keep the slots from others.
#[tokio::test]
async fn a_relay_releases_its_slots_after_the_call_that_keeps_them() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 0, 0);
    let publisher = publisher_to(&KafkaConfig::new("127.0.0.1:1"));
    let drain_timeout = Duration::from_millis(500);
    let relay = Relay::new(OutboxStore::of(store.clone()), publisher.clone())
        .with_settings(settings().with_drain_timeout(drain_timeout));
    let stop = CancellationToken::new();
    let relay: Running = tokio::spawn(Box::pin(relay.run(stop.clone())));
    registered(&outbox, 1).await;
    outbox.write(vec![record("k", 0)], true).await;
    eventually("the row is being sent", WITHIN, || async {
        publisher.flush(Duration::ZERO).await.err()
    })
    .await;
    store.lease.hold_next();
    stop.cancel();
    // A relay that does not wait for the call ends meanwhile, and drops it.
    sleep(drain_timeout * 3).await;
    store.lease.open();
    let report = ended(relay).await;
    assert_eq!(report.unacknowledged, 1, "{report:?}");
    assert_eq!(store.lease.interrupted(), 0);
    let status = outbox.status().await.expect("a status");
    assert_eq!((status.relays.len(), status.slots_free), (0, 64));
}
