//! SQLite passes the suite, and its own cases.

use super::SqliteOutbox;
use crate::event::{Headers, OutgoingRecord};
use crate::outbox::conformance::{self, Writer};
use crate::outbox::store::Store;
use crate::outbox::{OutboxError, OutboxStore};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

impl Writer for SqliteOutbox {
    fn write(&self, records: Vec<OutgoingRecord>, commit: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.begin("write").await.expect("a transaction begins");
            let written = self.publish_records(&mut transaction, &records).await;
            written.expect("written");
            conformance::end(transaction, commit).await;
        })
    }

    fn number_from(&self, sequence: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let set = "UPDATE sqlite_sequence SET seq = ? WHERE name = 'evenkeel_outbox'";
            let set = sqlx::query(set).bind(sequence - 1);
            set.execute(&self.pool)
                .await
                .expect("the statement succeeds");
        })
    }
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let outbox = SqliteOutbox::open(&directory.path().join("outbox.db")).await;
    let outbox = outbox.expect("an outbox");
    conformance::check(&outbox, &outbox).await;
}

/// A delete that is taken back repeats an event; a wait for the disk would delay all writers.
#[tokio::test]
async fn a_relay_does_not_wait_for_the_disk() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let outbox = SqliteOutbox::open(&directory.path().join("outbox.db")).await;
    let outbox = outbox.expect("an outbox");
    let synchronous: u32 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&outbox.pool)
        .await
        .expect("the query returns a row");
    assert_eq!(synchronous, 1, "1 is NORMAL");
}

#[tokio::test]
async fn records_are_numbered_in_their_order() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let outbox = SqliteOutbox::open(&directory.path().join("outbox.db")).await;
    let outbox = outbox.expect("an outbox");
    // More than the rows of one statement.
    let records: Vec<_> = (0..700).map(record).collect();
    for _ in 0..2 {
        let mut transaction = outbox.begin("write").await.expect("a transaction begins");
        let numbers = outbox.publish_records_numbered(&mut transaction, &records);
        let numbers = numbers.await.expect("written");
        transaction.commit().await.expect("the transaction commits");
        for (number, expected) in numbers.iter().zip(0..) {
            let key = "SELECT aggregateid FROM evenkeel_outbox WHERE sequence = ?";
            let key: String = sqlx::query_scalar(key)
                .bind(number)
                .fetch_one(&outbox.pool)
                .await
                .expect("the row exists");
            assert_eq!(key, i32::to_string(&expected));
        }
        assert_eq!(numbers.len(), 700);
    }
}

/// A record with this key.
fn record(key: i32) -> OutgoingRecord {
    OutgoingRecord {
        topic: "t".to_owned(),
        partition: None,
        key: Some(key.to_string().into()),
        value: None,
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_unchanged() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("outbox.db");
    let address = format!("sqlite:{}", path.display());
    let versions = OutboxStore::versions(&address).await.expect("none yet");
    assert_eq!((versions.stored, path.exists()), (0, false));
    let outbox = SqliteOutbox::open(&path).await.expect("the outbox opens");
    let versions = OutboxStore::versions(&address).await.expect("versions");
    assert_eq!(versions.stored, versions.newest);
    let newer = sqlx::query("UPDATE evenkeel_meta SET value = '99' WHERE name = 'outbox_version'");
    newer
        .execute(&outbox.pool)
        .await
        .expect("the statement succeeds");
    let refused = SqliteOutbox::open(&path).await.err();
    assert!(
        matches!(refused, Some(OutboxError::Foreign { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_status_is_read_without_a_change_of_the_store() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("outbox.db");
    let address = format!("sqlite:{}", path.display());
    let refused = OutboxStore::status_at(&address).await.err();
    assert!(matches!(refused, Some(OutboxError::Foreign { .. })));
    assert!(!path.exists(), "no file is created");

    let outbox = SqliteOutbox::open(&path).await.expect("the outbox opens");
    let status = OutboxStore::status_at(&address).await.expect("a status");
    assert_eq!((status.pending, status.slots_free), (0, 64));

    let older = sqlx::query("UPDATE evenkeel_meta SET value = '0' WHERE name = 'outbox_version'");
    let older = older.execute(&outbox.pool).await;
    older.expect("the statement succeeds");
    let refused = OutboxStore::status_at(&address).await.expect_err("too old");
    assert!(refused.to_string().contains("store migrate"), "{refused}");
    let versions = OutboxStore::versions(&address).await.expect("versions");
    assert_eq!(versions.stored, 0, "the version is not raised");
}

#[tokio::test]
async fn all_relays_of_the_process_are_woken() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let outbox = SqliteOutbox::open(&directory.path().join("outbox.db")).await;
    let outbox = outbox.expect("an outbox");
    let relays = [outbox.committed(), outbox.committed()];
    outbox.wake();
    for woken in relays {
        woken.now_or_never().expect("woken");
    }
}
