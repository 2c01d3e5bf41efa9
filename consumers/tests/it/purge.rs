//! A daemon deletes old inbox rows.

use crate::process::{Daemon, WITHIN};
use evenkeel::inbox::{Claimed, Inbox, InboxKey, SqliteInbox};
use evenkeel::testing::{KafkaKind, TestKafka, eventually};
use shop_consumers::payments;

async fn handled(inbox: &SqliteInbox) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM evenkeel_inbox")
        .fetch_one(inbox.pool())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_forgets_what_is_older_than_its_retention() {
    let kafka = TestKafka::start(KafkaKind::Mock).await.unwrap();
    kafka.create_topic("shop.orders", 1).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("payments.db");
    let group = payments::SERVICE.name;
    let inbox = SqliteInbox::open(&store, group, "").await.unwrap();
    let key = InboxKey::new(group, "order_placed", "/shop/orders", "1");
    let Claimed::Fresh(claim) = inbox.claim(&key).await.unwrap() else {
        panic!("a new store knows no delivery");
    };
    claim.complete(Vec::new()).await.unwrap();
    assert_eq!(handled(&inbox).await, 1);
    let daemon = Daemon::start(
        env!("CARGO_BIN_EXE_payments"),
        kafka.brokers(),
        &store,
        &["--inbox-retention", "1ms"],
    );
    eventually("the delivery is forgotten", WITHIN, || async {
        (handled(&inbox).await == 0).then_some(())
    })
    .await;
    daemon.stop();
    daemon.ends_cleanly().await;
}
