use super::store::ANSWER_LIMIT;
use super::*;
use crate::inbox::conformance::{self, Effects, Forgetting};
use crate::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey, completions};
use crate::outbox::PostgresOutbox;
use crate::postgres::Migration;
use crate::testing::{TestPostgres, postgres};
use sqlx::Connection;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const EFFECTS: &str = "CREATE TABLE IF NOT EXISTS effects (name text NOT NULL)";

/// An empty database, if there is a PostgreSQL.
async fn database() -> Option<String> {
    let postgres: &TestPostgres = postgres().await?;
    Some(
        postgres
            .database()
            .await
            .expect("the server creates a database"),
    )
}

async fn open(url: &str) -> PostgresInbox {
    PostgresInbox::open(url, EFFECTS)
        .await
        .expect("the store opens")
}

pub(crate) fn key(id: &str) -> InboxKey {
    InboxKey {
        group: "group".to_owned(),
        handler: "handler".to_owned(),
        source: "/source".to_owned(),
        id: id.to_owned(),
        content: None,
    }
}

pub(crate) async fn fresh(inbox: &PostgresInbox, id: &str) -> Box<dyn Claim> {
    match inbox
        .claim(&key(id))
        .await
        .expect("the store answers the claim")
    {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is a duplicate"),
    }
}

async fn is_duplicate(inbox: &PostgresInbox, id: &str) -> bool {
    let claimed = inbox
        .claim(&key(id))
        .await
        .expect("the store answers the claim");
    matches!(claimed, Claimed::Duplicate { .. })
}

pub(crate) fn transaction(claim: &mut Box<dyn Claim>) -> PostgresTx {
    let transaction = claim.transaction().expect("the transaction");
    *transaction.downcast().expect("of PostgreSQL")
}

pub(crate) async fn write(transaction: &mut PostgresTx, name: &str) -> Result<(), sqlx::Error> {
    let insert = sqlx::query("INSERT INTO effects VALUES ($1)").bind(name);
    insert.execute(&mut **transaction).await.map(drop)
}

async fn count(inbox: &PostgresInbox, name: &str) -> u64 {
    // In a transaction and not kept prepared, as a pooler requires.
    let mut transaction = inbox.pool().begin().await.expect("a transaction begins");
    let count = sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = $1");
    let count = count.persistent(false).bind(name);
    let count: i64 = count
        .fetch_one(&mut *transaction)
        .await
        .expect("the query returns a row");
    count as u64
}

async fn complete(claim: Box<dyn Claim>) -> Result<(), InboxError> {
    claim.complete(Vec::new()).await.map(drop)
}

pub(crate) struct Table(pub(crate) PostgresInbox);

impl Effects for Table {
    fn write<'a>(&'a self, transaction: Box<dyn Any + Send>, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut transaction: PostgresTx = *transaction.downcast().expect("of PostgreSQL");
            write(&mut transaction, name).await.expect("written");
        })
    }

    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, u64> {
        Box::pin(count(&self.0, name))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_keeps_the_contract() {
    let Some(url) = database().await else { return };
    for connections in [1, 4] {
        let settings = PostgresSettings::new(EFFECTS).with_connections(connections);
        let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
        let effects = Arc::new(Table(inbox.clone()));
        conformance::check(Arc::new(inbox), Some(effects)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_with_the_same_events_have_each_effect_once() {
    let Some(url) = database().await else { return };
    let mut racers = Vec::new();
    for _ in 0..3 {
        let inbox = open(&url).await;
        racers.extend((0..16).map(|offset| {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                for id in 0..50 {
                    // Each task starts elsewhere, so that they meet in any order.
                    let id = ((id + offset * 3) % 50).to_string();
                    let claimed = loop {
                        match inbox.claim(&key(&id)).await {
                            Ok(claimed) => break claimed,
                            Err(InboxError::Unavailable(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    };
                    if let Claimed::Fresh(mut claim) = claimed {
                        let mut transaction = transaction(&mut claim);
                        write(&mut transaction, &id).await.unwrap();
                        drop(transaction);
                        complete(claim).await.unwrap();
                    }
                }
            })
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let inbox = open(&url).await;
    for id in 0..50 {
        assert_eq!(count(&inbox, &id.to_string()).await, 1, "event {id}");
    }
}

#[tokio::test]
async fn concurrent_instances_can_open_an_empty_database() {
    let Some(url) = database().await else { return };
    let opened = (0..8).map(|_| open(&url));
    for inbox in futures_util::future::join_all(opened).await {
        complete(fresh(&inbox, &crate::event::new_id()).await)
            .await
            .unwrap();
    }
}

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

#[tokio::test]
async fn an_outdated_or_newer_database_is_refused() {
    let Some(url) = database().await else { return };
    let settings = PostgresSettings::new(EFFECTS).with_migration(Migration::Elsewhere);
    let refused = async || match PostgresInbox::open_with(&url, &settings).await {
        Err(error @ InboxError::Foreign { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    };
    assert!(refused().await.contains("evenkeel store migrate"));
    let versions = async || PostgresInbox::versions(&url).await.unwrap().unwrap();
    let before = versions().await;
    assert_eq!((before.stored, before.newest), (0, tables::VERSION));
    let inbox = open(&url).await;
    assert_eq!(versions().await.stored, tables::VERSION);
    let of_sqlite = PostgresInbox::versions("sqlite:service.db").await;
    assert!(of_sqlite.unwrap().is_none());
    PostgresInbox::open_with(&url, &settings).await.unwrap();
    sqlx::raw_sql("UPDATE evenkeel_meta SET value = '99' WHERE name = 'version'")
        .execute(inbox.pool())
        .await
        .unwrap();
    assert!(refused().await.contains("newer release"));
    assert!(PostgresInbox::open(&url, "").await.is_err());
}

#[tokio::test]
async fn an_older_database_is_migrated() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    complete(fresh(&inbox, "1").await).await.unwrap();
    sqlx::raw_sql(
        "ALTER TABLE evenkeel_inbox DROP COLUMN content;
         UPDATE evenkeel_meta SET value = '3' WHERE name = 'version'",
    )
    .execute(inbox.pool())
    .await
    .unwrap();
    inbox.close().await;
    let inbox = open(&url).await;
    // The content of its event is not known.
    let said = InboxKey {
        content: Some(crate::event::ContentDigest::of_event("test.said.v1", b"")),
        ..key("1")
    };
    let again = inbox.claim(&said).await.unwrap();
    assert!(matches!(again, Claimed::Duplicate { .. }));
}

#[tokio::test]
async fn an_unavailable_server_is_reported_without_the_password() {
    let settings = PostgresSettings::new("").with_lock_timeout(Duration::from_millis(300));
    let url = "postgres://user:secret@127.0.0.1:1/database";
    let Err(error) = PostgresInbox::open_with(url, &settings).await else {
        panic!("there is no server");
    };
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    let message = format!("{error} {error:?}");
    assert!(!message.contains("secret"), "{message}");
    let Err(error) = PostgresInbox::open("no url with a secret", "").await else {
        panic!("that is no URL");
    };
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn purging_forgets_old_completions_in_batches_and_keeps_young_ones() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    for id in 0..25 {
        complete(fresh(&inbox, &id.to_string()).await)
            .await
            .unwrap();
    }
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 0);
    sqlx::raw_sql(
        "UPDATE evenkeel_inbox SET completed_at = completed_at - interval '2 days' WHERE id <> '7'",
    )
    .execute(inbox.pool())
    .await
    .unwrap();
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 24);
    assert!(is_duplicate(&inbox, "7").await);
    assert!(!is_duplicate(&inbox, "8").await);
}

struct Purged(PostgresInbox, String);

impl Forgetting for Purged {
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.0
                .purge(Duration::ZERO, 10)
                .await
                .expect("the purge succeeds");
        })
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        let url = self.1.clone();
        Box::pin(async move { Arc::new(open(&url).await) as Arc<dyn Inbox> })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_reports_its_purge_watermark() {
    let Some(url) = database().await else { return };
    conformance::check_forgetting(Arc::new(Purged(open(&url).await, url))).await;
}

/// A purge that deletes nothing sets no time.
#[tokio::test]
async fn purges_that_delete_less_never_lower_the_forgotten_time() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    inbox
        .purge(Duration::ZERO, 10)
        .await
        .expect("the purge succeeds");
    assert_eq!(inbox.forgotten_before_ms(), None);
    for (id, completed_s) in [("1", 5.0), ("2", 1.0)] {
        complete(fresh(&inbox, id).await)
            .await
            .expect("the claim completes");
        let set = "UPDATE evenkeel_inbox SET completed_at = to_timestamp($1) WHERE id = $2";
        let set = sqlx::query(set).bind(completed_s).bind(id);
        set.execute(inbox.pool())
            .await
            .expect("the statement succeeds");
        let hour = Duration::from_secs(3600);
        assert_eq!(inbox.purge(hour, 10).await.expect("the purge succeeds"), 1);
        // A process opened later knows the stored time, and no more.
        let later = open(&url).await;
        drop(fresh(&later, "later").await);
        assert_eq!(later.forgotten_before_ms(), Some(5_001));
        assert_eq!(inbox.forgotten_before_ms(), Some(5_001));
    }
}

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

#[tokio::test]
async fn opening_and_claims_do_not_wait_for_each_other() {
    let Some(url) = database().await else { return };
    let inbox = open(&url).await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "1").await.unwrap();
    let slow = PostgresSettings::new("SELECT pg_sleep(3)");
    let opening = PostgresInbox::open_with(&url, &slow);
    let working = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = std::time::Instant::now();
        complete(fresh(&inbox, "2").await).await.unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "it waited");
    };
    let (opened, ()) = tokio::join!(opening, working);
    opened.unwrap();
    drop(transaction);
    complete(claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_begin_leaves_no_open_transaction() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let settings = PostgresSettings::new(EFFECTS).with_connections(1);
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    complete(fresh(&inbox, "before").await).await.unwrap();
    server.freeze().await.unwrap();
    let begins = (0..8).map(|_| {
        let begin = inbox.store().database.begin(statements::GUARD);
        tokio::time::timeout(Duration::from_millis(200), begin)
    });
    let begun = futures_util::future::join_all(begins).await;
    assert!(begun.iter().all(Result::is_err), "the server stands still");
    server.thaw().await.unwrap();
    for id in 0..8 {
        let claim = fresh(&inbox, &id.to_string()).await;
        complete(claim)
            .await
            .expect("no transaction was open before");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answering_loses_its_connections() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let settings = PostgresSettings::new(EFFECTS)
        .with_connections(1)
        .with_lock_timeout(Duration::from_secs(1));
    let inbox = PostgresInbox::open_with(&url, &settings).await.unwrap();
    let claim = fresh(&inbox, "1").await;
    server.freeze().await.unwrap();
    let limit = ANSWER_LIMIT * 6;
    let completed = tokio::time::timeout(limit, complete(claim)).await;
    let error = completed.expect("it waits for ever").expect_err("silence");
    assert!(matches!(error, InboxError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("no answer within"), "{error}");
    server.thaw().await.unwrap();
    crate::testing::eventually("it goes on", limit, async || {
        match inbox.claim(&key("1")).await {
            Ok(Claimed::Fresh(claim)) => complete(claim).await.ok(),
            // The commit was already sent.
            Ok(Claimed::Duplicate { .. }) => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

/// With the default limits: 10 s for a lock, 20 s for an answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_server_is_detected_within_seconds() {
    let Some(server) = crate::testing::required(TestPostgres::start().await) else {
        return;
    };
    let url = server.database().await.unwrap();
    let inbox = PostgresInbox::open(&url, EFFECTS).await.unwrap();
    let mut claim = fresh(&inbox, "1").await;
    let transaction = claim.transaction().expect("one");
    let mut transaction = transaction.downcast::<PostgresTx>().expect("of PostgreSQL");
    server.freeze().await.unwrap();
    let began = std::time::Instant::now();
    let statement = async {
        let sql = sqlx::query("SELECT 1");
        let _ = sql.execute(&mut **transaction).await;
    };
    let recalled = std::future::poll_fn(|cx| claim.poll_recalled(cx));
    let error: InboxError = tokio::select! {
        error = recalled => error,
        () = statement => panic!("it was answered"),
    };
    assert!(error.to_string().contains("no answer within"), "{error}");
    // One waits for an answer of its own, the others wait behind it.
    let others = (2..40).map(|id| {
        let inbox = inbox.clone();
        async move { inbox.claim(&key(&id.to_string())).await.map(drop) }
    });
    let others = futures_util::future::join_all(others).await;
    assert!(others.iter().all(Result::is_err));
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop((transaction, claim));
    server.thaw().await.unwrap();
    crate::testing::eventually("it goes on", ANSWER_LIMIT * 6, async || {
        match inbox.claim(&key("1")).await {
            Ok(Claimed::Fresh(claim)) => complete(claim).await.ok(),
            Ok(Claimed::Duplicate { .. }) => panic!("it was undone"),
            Err(_) => None,
        }
    })
    .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_inbox_reports_completions() {
    let Some(url) = database().await else {
        return;
    };
    let inbox = open(&url).await;
    completions::conformance::check("group", &inbox, &inbox).await;
}
