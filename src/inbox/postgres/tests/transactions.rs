//! What a handler may do with its transaction.

use super::*;
use crate::handler::{Class, HandlerError, default_classifier};
use crate::inbox::postgres::error::misuse;

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

/// An administrator may bound how long a transaction may wait for its client. A handler that always
/// takes longer would otherwise be an outage without an end, for the whole group.
#[tokio::test]
async fn a_transaction_that_the_server_ended_fails_its_own_delivery() {
    let Some(url) = database().await else { return };
    let url = format!("{url}?options=-c%20idle_in_transaction_session_timeout%3D1000");
    let inbox = open(&url).await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    drop(transaction);
    let error = complete(claim).await.expect_err("the server ended it");
    assert!(matches!(error, InboxError::Transaction { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("idle_in_transaction_session_timeout"),
        "{text}"
    );
    assert_eq!(count(&inbox, "1").await, 0);
    complete(fresh(&inbox, "1").await).await.unwrap();
}

/// The limit of a whole transaction (since PostgreSQL 17) may end it in the turn of a quick
/// handler, after those of slow ones.
#[tokio::test]
async fn a_shared_transaction_that_took_too_long_blames_no_handler() {
    let Some(url) = database().await else { return };
    let mut server = sqlx::PgConnection::connect(&url).await.unwrap();
    let exceeded = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '25P04'; END $$";
    let exceeded = sqlx::raw_sql(exceeded).execute(&mut server).await;
    let exceeded = exceeded.unwrap_err();
    let shared = misuse(&exceeded, true);
    assert!(
        matches!(shared, Some(InboxError::TryAgain(_))),
        "{shared:?}"
    );
    let alone = misuse(&exceeded, false);
    assert!(
        matches!(alone, Some(InboxError::Transaction { .. })),
        "{alone:?}"
    );
}

/// A migration may change a table while the connections have statements on it prepared. Each of the
/// three connections fails once.
#[tokio::test]
async fn a_changed_table_fails_a_prepared_statement_once() {
    let Some(url) = database().await else { return };
    let settings = PostgresSettings::new(EFFECTS).with_connections(1);
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    let failure = async |id: String| {
        let mut claim = fresh(&inbox, &id).await;
        let mut transaction = transaction(&mut claim);
        let read = sqlx::query("SELECT * FROM effects");
        let read = read.fetch_all(&mut *transaction).await;
        drop(transaction);
        let Err(error) = read else {
            complete(claim).await.unwrap();
            return None;
        };
        let has_collided = claim.fail(&error).await.unwrap();
        assert!(!has_collided, "no other transaction was in its way");
        Some(HandlerError::from(error).class(&default_classifier()))
    };
    for n in 0..6 {
        assert_eq!(failure(format!("before {n}")).await, None);
    }
    let idle = async || (inbox.pool().num_idle() > 0).then_some(());
    crate::testing::eventually("a connection is idle", ANSWER_LIMIT, idle).await;
    let mut owner = sqlx::PgConnection::connect(&url).await.unwrap();
    let change = sqlx::raw_sql("ALTER TABLE effects ADD COLUMN note text");
    change.execute(&mut owner).await.unwrap();
    let mut failures = Vec::new();
    for n in 0..30 {
        failures.extend(failure(format!("after {n}")).await);
    }
    assert!((1..=3).contains(&failures.len()), "{failures:?}");
    assert!(failures.iter().all(|class| *class == Class::Outage));
}
