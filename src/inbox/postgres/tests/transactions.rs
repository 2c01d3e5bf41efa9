//! What a handler may do with its transaction.

use super::*;

#[tokio::test]
async fn a_handlers_commit_is_refused_and_its_rollback_detected() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    for (at, sql) in ["COMMIT", "ROLLBACK", "ROLLBACK; BEGIN"].iter().enumerate() {
        let id = at.to_string();
        let mut claim = fresh(&inbox, &id).await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, &id).await.unwrap();
        let ended = sqlx::raw_sql(*sql).execute(&mut *transaction).await;
        assert_eq!(ended.is_err(), *sql == "COMMIT", "{sql}: {ended:?}");
        drop(transaction);
        let error = complete(claim).await.expect_err(sql);
        assert!(
            matches!(error, InboxError::Transaction { .. }),
            "{sql}: {error:?}"
        );
        assert_eq!(count(&inbox, &id).await, 0, "{sql}");
        complete(fresh(&inbox, &id).await).await.unwrap();
    }
}

/// PostgreSQL keeps nothing after a failed statement, even if the handler ignores the failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_swallowed_failed_statement_fails_its_own_delivery_only() {
    let Some(url) = database().await else { return };
    let settings = PostgresSettings::new(EFFECTS).with_connections(1);
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    let deliver = |id: usize| {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            let mut claim = fresh(&inbox, &id.to_string()).await;
            let mut transaction = transaction(&mut claim);
            write(&mut transaction, &id.to_string()).await.unwrap();
            if id % 5 == 4 {
                let failed = sqlx::raw_sql("SELECT 1 / 0")
                    .execute(&mut *transaction)
                    .await;
                assert!(failed.is_err());
            }
            drop(transaction);
            (id, complete(claim).await)
        })
    };
    let tasks: Vec<_> = (0..100).map(deliver).collect();
    for task in tasks {
        let (id, completed) = task.await.unwrap();
        match completed {
            Ok(()) => assert_ne!(id % 5, 4),
            Err(InboxError::Transaction { reason }) => {
                assert_eq!(id % 5, 4);
                assert!(reason.contains("one of the handler's statements failed"));
            }
            Err(error) => panic!("{id}: {error}"),
        }
        assert_eq!(count(&inbox, &id.to_string()).await, u64::from(id % 5 != 4));
    }
}

#[tokio::test]
async fn a_handlers_own_savepoints_are_part_of_its_transaction() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let mut nested = transaction.begin().await.unwrap();
    let failed = sqlx::raw_sql("SELECT 1 / 0").execute(&mut *nested).await;
    assert!(failed.is_err());
    nested.rollback().await.unwrap();
    write(&mut transaction, "1").await.unwrap();
    drop(transaction);
    complete(claim).await.unwrap();
    assert_eq!(count(&inbox, "1").await, 1);
}
