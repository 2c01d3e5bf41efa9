//! Rows that become ready while others are being sent.

use super::hand_over::{LONG_LEASE, Shop, WITHIN, publisher_to, record, registered};
use super::slow_store::SlowStore;
use crate::event::OutgoingRecord;
use crate::kafka::KafkaConfig;
use crate::outbox::conformance::Writer;
use crate::outbox::relay::run::BURST_WAIT_MIN;
use crate::outbox::{OutboxStore, Relay, RelaySettings};
use crate::testing::eventually;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Nobody listens at the address of the brokers, so no burst ever ends. The second row is of another
/// topic: a second record of the first one would wait for the topic's limit.
#[tokio::test]
async fn rows_wait_for_the_burst_before_them_for_an_interval() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let publisher = publisher_to(&KafkaConfig::new("127.0.0.1:1"));
    // Rows are read soon after they are written: only the burst delays them.
    let settings = RelaySettings::default()
        .with_lease(LONG_LEASE)
        .with_poll_interval(Duration::from_millis(1));
    let relay = Relay::new(outbox.clone(), publisher.clone()).with_settings(settings);
    let stop = CancellationToken::new();
    let running = tokio::spawn(Box::pin(relay.run(stop.clone())));
    registered(&outbox, 1).await;
    // Polled often: two slow polls would take as long as the interval.
    let sent = async |rows: usize| {
        let unsent = async || publisher.flush(Duration::ZERO).await.err();
        let seen = async {
            while unsent().await.is_none_or(|unsent| unsent.records != rows) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(WITHIN, seen)
            .await
            .expect("the rows are being sent");
    };
    let begun = Instant::now();
    outbox.write(vec![record("k1", 1)], true).await;
    sent(1).await;
    let second = OutgoingRecord {
        topic: "u".to_owned(),
        ..record("k2", 2)
    };
    outbox.write(vec![second], true).await;
    sent(2).await;
    assert!(begun.elapsed() >= BURST_WAIT_MIN, "{:?}", begun.elapsed());
    running.abort();
}

/// The store does not answer the first call that deletes, and no other call follows it.
#[tokio::test]
async fn the_next_row_of_a_key_is_sent_before_the_store_deletes() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 0, 1);
    // More than are published before the first call.
    let records = (0..32).map(|value| record("k", value));
    outbox.write(records.collect(), true).await;
    let relay = Relay::new(OutboxStore::of(store.clone()), shop.publisher())
        .with_settings(RelaySettings::default().with_lease(LONG_LEASE));
    let running = tokio::spawn(Box::pin(relay.run(CancellationToken::new())));
    let deleting = eventually("published rows are deleted", WITHIN, async || {
        Some(store.deleting()).filter(|rows| *rows > 0)
    });
    let deleting = deleting.await;
    eventually("the next row is published", WITHIN, async || {
        (shop.published().await.len() > deleting).then_some(())
    })
    .await;
    running.abort();
}
