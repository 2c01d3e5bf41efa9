//! Events that handlers publish, with an outbox in the same database.

use super::*;

/// The contract of an inbox holds with an outbox as well.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_outbox_events_commit_with_effects() {
    let Some(url) = database().await else { return };
    let outbox = PostgresOutbox::open(&url).await.unwrap();
    let inbox = open(&url).await.with_outbox(outbox).unwrap();
    for id in ["kept", "undone"] {
        let mut claim = fresh(&inbox, id).await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, id).await.unwrap();
        drop(transaction);
        if id == "kept" {
            let unsent = claim
                .complete(vec![conformance::record("1")])
                .await
                .unwrap();
            assert!(unsent.is_empty(), "the relay publishes it");
        } else {
            claim.abandon().await.unwrap();
        }
    }
    let waiting: Vec<Vec<u8>> = sqlx::query_scalar("SELECT payload FROM evenkeel_outbox")
        .fetch_all(inbox.pool())
        .await
        .unwrap();
    assert_eq!(waiting, [b"1"]);
    let effects = Arc::new(Table(inbox.clone()));
    conformance::check(Arc::new(inbox), Some(effects)).await;
}

/// Outside of a transaction the event would be published, and again when its delivery is retried.
#[tokio::test]
async fn events_of_a_manually_rolled_back_transaction_are_not_published() {
    let Some(url) = database().await else { return };
    let outbox = PostgresOutbox::open(&url).await.unwrap();
    let inbox = open(&url).await.with_outbox(outbox).unwrap();
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let mut claim = fresh(&inbox, "1").await;
        let mut transaction = transaction(&mut claim);
        let rolled_back = sqlx::raw_sql(sql).execute(&mut *transaction).await;
        rolled_back.unwrap();
        drop(transaction);
        let error = claim.complete(vec![conformance::record("1")]).await;
        let error = error.expect_err(sql);
        assert!(
            matches!(error, InboxError::Transaction { .. }),
            "{sql}: {error:?}"
        );
    }
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert_eq!(left, 0);
}

/// The server was replaced by a copy without the sequence's state while the service ran: the fault
/// of no event.
#[tokio::test]
async fn events_wait_for_a_sequence_that_is_behind_the_rows() {
    let Some(url) = database().await else { return };
    let outbox = PostgresOutbox::open(&url).await.unwrap();
    let inbox = open(&url).await.with_outbox(outbox).unwrap();
    let publish = async |id: &str| {
        let published = vec![conformance::record(id)];
        fresh(&inbox, id).await.complete(published).await.map(drop)
    };
    publish("1").await.unwrap();
    let restart = "ALTER TABLE evenkeel_outbox ALTER COLUMN sequence RESTART WITH 1";
    let restart = sqlx::raw_sql(restart).execute(inbox.pool()).await;
    restart.unwrap();
    let error = publish("2").await.expect_err("the number is taken");
    assert!(matches!(error, InboxError::NotWritable(_)), "{error:?}");
    assert!(error.to_string().contains("sequence is behind"), "{error}");
}

#[tokio::test]
async fn the_outbox_of_another_database_is_refused() {
    let (Some(url), Some(other)) = (database().await, database().await) else {
        return;
    };
    let outbox = PostgresOutbox::open(&other).await.unwrap();
    let Err(error) = open(&url).await.with_outbox(outbox) else {
        panic!("it is of another database");
    };
    assert!(error.to_string().contains("open both on one"), "{error}");
}
