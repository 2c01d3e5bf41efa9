//! Events that handlers publish, with an outbox in the same file.

use super::*;
use crate::outbox::SqliteOutbox;

#[tokio::test]
async fn published_events_commit_with_the_effect_or_not_at_all() {
    let file = File::new();
    let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
    let inbox = file.open().await.with_outbox(outbox).unwrap();
    let published = || vec![conformance::record("1"), conformance::record("2")];
    for id in ["kept", "undone"] {
        let mut claim = fresh(&inbox, id).await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, id).await.unwrap();
        drop(transaction);
        if id == "kept" {
            let unsent = claim.complete(published()).await.unwrap();
            assert!(unsent.is_empty(), "the relay publishes it");
        } else {
            claim.abandon().await.unwrap();
        }
    }
    let waiting = "SELECT payload FROM evenkeel_outbox ORDER BY sequence";
    let waiting: Vec<Vec<u8>> = sqlx::query_scalar(waiting)
        .fetch_all(inbox.pool())
        .await
        .unwrap();
    assert_eq!(waiting, [b"1", b"2"]);
    assert!(is_duplicate(&inbox, "kept").await);
    let claim = fresh(&inbox, "undone").await;
    claim.complete(published()).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert_eq!(count, 4);
}

/// Outside of a transaction the event would be published, and again when its delivery is retried.
#[tokio::test]
async fn events_of_a_manually_rolled_back_transaction_are_not_published() {
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let file = File::new();
        let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
        let inbox = file.open().await.with_outbox(outbox).unwrap();
        let mut claim = fresh(&inbox, "1").await;
        let mut transaction = transaction(&mut claim);
        sqlx::raw_sql(sql).execute(&mut *transaction).await.unwrap();
        drop(transaction);
        let error = claim.complete(vec![conformance::record("1")]).await;
        let error = error.expect_err(sql);
        assert!(
            matches!(error, InboxError::Transaction { .. }),
            "{sql}: {error:?}"
        );
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
            .fetch_one(inbox.pool())
            .await
            .unwrap();
        assert_eq!(left, 0, "{sql}");
    }
}

#[tokio::test]
async fn the_outbox_of_another_file_is_refused() {
    let (file, other) = (File::new(), File::new());
    let outbox = SqliteOutbox::open(&other.path()).await.unwrap();
    let Err(error) = file.open().await.with_outbox(outbox) else {
        panic!("it is of another file");
    };
    assert!(
        error.to_string().contains("open both on one file"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_outbox_the_contract_holds_too() {
    let file = File::new();
    let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
    let inbox = file.open().await.with_outbox(outbox).unwrap();
    let inbox = Arc::new(inbox);
    conformance::check(inbox.clone(), Some(inbox)).await;
}
