//! When a relay reads.

use super::hand_over::{LONG_LEASE, Shop, WITHIN};
use super::slow_store::SlowStore;
use crate::outbox::{OutboxStore, Relay, RelaySettings};
use crate::testing::eventually;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A read that brings nothing may have passed over a long backlog of the keys in memory.
const READ: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_read_without_rows_is_followed_by_a_pause_of_its_length() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let store = SlowStore::new(outbox.clone(), 0, 0).with_reads_of(READ);
    let relay = Relay::new(OutboxStore::of(store.clone()), shop.publisher())
        .with_settings(RelaySettings::default().with_lease(LONG_LEASE));
    let running = tokio::spawn(Box::pin(relay.run(CancellationToken::new())));
    // Each commit is a reason to read.
    let committing = async {
        loop {
            outbox.wake();
            sleep(Duration::from_millis(1)).await;
        }
    };
    let reading = eventually("the outbox is read", WITHIN, async || {
        (store.reads().len() > 5).then_some(())
    });
    tokio::select! {
        () = committing => {}
        () = reading => {}
    }
    running.abort();
    for reads in store.reads().windows(2) {
        let pause = reads[1][0] - reads[0][1];
        assert!(pause >= READ, "{pause:?}");
    }
}
