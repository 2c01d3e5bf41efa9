//! What a handler may do with its transaction, and faults in the middle of one.

use super::*;
use crate::outbox::SqliteOutbox;

#[tokio::test]
async fn a_crash_inside_a_transaction_leaves_nothing() {
    let file = File::new();
    let survivor = file.open().await;
    let dying = file.open().await;
    let mut claim = fresh(&dying, "1").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "1").await.unwrap();
    drop((claim, transaction, dying));
    fresh(&survivor, "1")
        .await
        .complete(Vec::new())
        .await
        .unwrap();
    assert_eq!(count(&survivor, "1").await, 0);
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_half_written() {
    let file = File::new();
    let inbox = file.open().await;
    report_full_disk(inbox).await;
}

/// SQLite rolls the whole transaction back when the one row of the event does not fit.
#[tokio::test]
async fn a_full_disk_is_reported_although_sqlite_ended_the_transaction() {
    let file = File::new();
    let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
    let inbox = file.open().await.with_outbox(outbox).unwrap();
    report_full_disk(inbox).await;
}

async fn report_full_disk(inbox: SqliteInbox) {
    fresh(&inbox, "before")
        .await
        .complete(Vec::new())
        .await
        .unwrap();
    let pages: u32 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    // The limit applies to the connection; a value below the present size means the present size.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "PRAGMA max_page_count = {pages}"
    )))
    .execute(&inbox.store().writer)
    .await
    .unwrap();
    let mut claim = fresh(&inbox, "full").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "full").await.unwrap();
    drop(transaction);
    match claim
        .complete(vec![conformance::record(&"x".repeat(100_000))])
        .await
    {
        Err(error @ InboxError::NotWritable(_)) => {
            let message = error.to_string();
            assert!(message.contains("free some space"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&inbox, "full").await, 0);
    sqlx::raw_sql("PRAGMA max_page_count = 1000000")
        .execute(&inbox.store().writer)
        .await
        .unwrap();
    fresh(&inbox, "full")
        .await
        .complete(vec![conformance::record(&"x".repeat(100_000))])
        .await
        .unwrap();
    assert!(is_duplicate(&inbox, "before").await);
}

#[tokio::test]
async fn a_handlers_rollback_is_detected_and_loses_no_event() {
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let file = File::new();
        let inbox = file.open().await;
        for end in [true, false] {
            let mut claim = fresh(&inbox, "1").await;
            let mut transaction = transaction(&mut claim);
            write(&mut transaction, "1").await.unwrap();
            sqlx::raw_sql(sql).execute(&mut *transaction).await.unwrap();
            let continued = write(&mut transaction, "1").await;
            assert_eq!(continued.is_err(), sql == "ROLLBACK", "{continued:?}");
            drop(transaction);
            if end {
                let error = claim.complete(Vec::new()).await.unwrap_err();
                assert!(
                    matches!(error, InboxError::Transaction { .. }),
                    "{sql}: {error:?}"
                );
            } else {
                drop(claim);
            }
        }
        fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
        assert!(is_duplicate(&inbox, "1").await, "{sql}");
        assert_eq!(count(&inbox, "1").await, 0);
    }
}

#[tokio::test]
async fn a_handlers_own_commit_is_refused_and_loses_no_event() {
    for sql in ["COMMIT", "COMMIT; BEGIN", "RELEASE evenkeel_1; COMMIT"] {
        let file = File::new();
        let inbox = file.open().await;
        let mut claim = fresh(&inbox, "1").await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, "1").await.unwrap();
        let refused = sqlx::raw_sql(sql).execute(&mut *transaction).await;
        assert!(refused.is_err(), "{sql}");
        drop(transaction);
        let error = claim.complete(Vec::new()).await.unwrap_err();
        assert!(
            matches!(error, InboxError::Transaction { .. }),
            "{sql}: {error:?}"
        );
        assert_eq!(count(&inbox, "1").await, 0, "{sql}");
        fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
        assert!(is_duplicate(&inbox, "1").await, "{sql}");
    }
}

#[tokio::test]
async fn a_handlers_own_savepoints_are_part_of_its_transaction() {
    let file = File::new();
    let inbox = file.open().await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let nested = transaction.begin().await.unwrap();
    nested.rollback().await.unwrap();
    write(&mut transaction, "1").await.unwrap();
    drop(transaction.begin().await.unwrap());
    drop(transaction);
    claim.complete(Vec::new()).await.unwrap();
    assert_eq!(count(&inbox, "1").await, 1);
}

/// The store is free again when the task ends.
#[tokio::test]
async fn a_transaction_moved_into_a_task_commits_nothing() {
    let file = File::new();
    let inbox = file.open().await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let leak = tokio::spawn(async move {
        write(&mut transaction, "1").await.unwrap();
        finished.await.unwrap();
    });
    let error = claim.complete(Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("still holds it"), "{error}");
    finish.send(()).unwrap();
    leak.await.unwrap();
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    assert_eq!(count(&inbox, "1").await, 0);
}
