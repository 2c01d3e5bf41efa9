//! PostgreSQL passes the suite, and its own cases: the order of transactions on a key, concurrent
//! opening, and blocking transactions.

mod sequence;

use super::super::store::{Page, Store};
use super::PostgresOutbox;
use crate::event::{Headers, OutgoingRecord};
use crate::kafka::KafkaConfig;
use crate::outbox::conformance::{self, Writer};
use crate::outbox::row::SLOTS;
use crate::outbox::{OutboxError, OutboxStore, Relay};
use crate::publisher::{Publisher, PublisherSettings};
use crate::testing::eventually;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(30);

/// The URL of an empty database; `None` without PostgreSQL.
async fn database() -> Option<String> {
    let postgres = crate::testing::postgres().await?;
    Some(postgres.database().await.expect("an empty database"))
}

async fn outbox(url: &str) -> PostgresOutbox {
    PostgresOutbox::open(url).await.expect("the outbox opens")
}

fn record(key: &str) -> OutgoingRecord {
    OutgoingRecord {
        topic: "t".to_owned(),
        partition: None,
        key: Some(key.to_owned().into()),
        value: None,
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

async fn keys(outbox: &PostgresOutbox) -> Vec<String> {
    let page = Page {
        slots: (0..SLOTS).collect(),
        rows_max: 100,
        bytes_max: 1 << 20,
        ..Page::default()
    };
    let read = outbox.read(&page).await.expect("readable");
    let key = |row: super::super::store::StoredRow| {
        let key = row.record.expect("a record").key.expect("a key");
        String::from_utf8_lossy(&key).into_owned()
    };
    read.rows.into_iter().map(key).collect()
}

impl Writer for PostgresOutbox {
    fn write(&self, records: Vec<OutgoingRecord>, commit: bool) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let mut transaction = self.pool().begin().await.expect("a transaction begins");
            let written = self.publish_records(&mut transaction, &records).await;
            written.expect("written");
            conformance::end(transaction, commit).await;
        })
    }

    fn number_from(&self, sequence: i64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let restart = format!(
                "ALTER TABLE evenkeel_outbox ALTER COLUMN sequence RESTART WITH {sequence}"
            );
            let restart = sqlx::raw_sql(sqlx::AssertSqlSafe(restart));
            restart.execute(self.pool()).await.expect("restarted");
        })
    }
}

#[tokio::test]
async fn postgres_keeps_the_contract() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    conformance::check(&outbox, &outbox).await;
}

#[tokio::test]
async fn records_are_numbered_in_their_order() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    let records = ["b", "a", "c", "a"].map(record);
    let mut transaction = outbox.pool().begin().await.expect("a transaction begins");
    let numbers = outbox.publish_records_numbered(&mut transaction, &records);
    let numbers = numbers.await.expect("written");
    transaction.commit().await.expect("the transaction commits");
    let keys = "SELECT aggregateid FROM unnest($1::bigint[]) WITH ORDINALITY AS asked (number, n)
                JOIN evenkeel_outbox ON sequence = number ORDER BY n";
    let keys: Vec<String> = sqlx::query_scalar(keys)
        .bind(numbers)
        .fetch_all(outbox.pool())
        .await
        .expect("the rows exist");
    assert_eq!(keys, ["b", "a", "c", "a"]);
}

#[tokio::test]
async fn concurrent_opens_of_an_empty_database_create_one_outbox() {
    let Some(url) = database().await else { return };
    let opened = (0..8).map(|_| PostgresOutbox::open(&url));
    for opened in futures_util::future::join_all(opened).await {
        opened.expect("an outbox");
    }
}

#[tokio::test]
async fn the_status_is_read_without_a_change_of_the_database() {
    let Some(url) = database().await else { return };
    let refused = OutboxStore::status_at(&url).await.err();
    assert!(
        matches!(refused, Some(OutboxError::Foreign { .. })),
        "{refused:?}"
    );
    let versions = OutboxStore::versions(&url).await.expect("versions");
    assert_eq!(versions.stored, 0, "no table is created");

    let outbox = outbox(&url).await;
    let status = OutboxStore::status_at(&url).await.expect("a status");
    assert_eq!((status.pending, status.slots_free), (0, 64));

    let older = sqlx::query("UPDATE evenkeel_meta SET value = '0' WHERE name = 'outbox_version'");
    let older = older.execute(outbox.pool()).await;
    older.expect("the statement succeeds");
    let refused = OutboxStore::status_at(&url).await.expect_err("too old");
    assert!(refused.to_string().contains("store migrate"), "{refused}");
    let versions = OutboxStore::versions(&url).await.expect("versions");
    assert_eq!(versions.stored, 0, "the version is not raised");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let Some(url) = database().await else { return };
    assert_eq!(
        OutboxStore::versions(&url).await.expect("none yet").stored,
        0
    );
    let outbox = outbox(&url).await;
    let versions = OutboxStore::versions(&url).await.expect("versions");
    assert_eq!(versions.stored, versions.newest);
    let newer = sqlx::query("UPDATE evenkeel_meta SET value = '99' WHERE name = 'outbox_version'");
    newer
        .execute(outbox.pool())
        .await
        .expect("the statement succeeds");
    let refused = PostgresOutbox::open(&url).await.err();
    assert!(
        matches!(refused, Some(OutboxError::Foreign { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_transaction_waits_for_the_earlier_one_on_its_key() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    let mut first = outbox.pool().begin().await.expect("a transaction begins");
    let mut second = outbox.pool().begin().await.expect("a transaction begins");
    let mut other = outbox.pool().begin().await.expect("a transaction begins");
    let (a, b) = ([record("k"), record("z")], [record("a"), record("k")]);
    outbox
        .publish_records(&mut first, &a)
        .await
        .expect("the outbox takes the records");
    // Another key does not wait.
    let others = outbox.publish_records(&mut other, &[record("other")]).await;
    others.expect("written");
    other.commit().await.expect("the transaction commits");

    let mut waiting = Box::pin(outbox.publish_records(&mut second, &b));
    let waits = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
    until_it_waits(&outbox, &mut waiting, waits).await;
    assert_eq!(keys(&outbox).await, ["other"]);
    first.commit().await.expect("the transaction commits");
    waiting.await.expect("written");
    second.commit().await.expect("the transaction commits");
    // Even the row of its other key got no number before its turn.
    assert_eq!(keys(&outbox).await, ["k", "z", "other", "a", "k"]);
}

/// Polls a call of the outbox until PostgreSQL shows by the query `waits` that it waits.
async fn until_it_waits(
    outbox: &PostgresOutbox,
    mut call: impl Future + Unpin,
    waits: &'static str,
) {
    eventually("the second waits", WITHIN, || {
        assert!((&mut call).now_or_never().is_none(), "it did not wait");
        async {
            let waits: bool = sqlx::query_scalar(waits)
                .fetch_one(outbox.pool())
                .await
                .expect("the query returns a row");
            waits.then_some(())
        }
    })
    .await;
}

#[tokio::test]
async fn statements_with_keys_in_opposite_orders_do_not_deadlock() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    let forth: Vec<_> = (0..50).map(|key| record(&key.to_string())).collect();
    let back: Vec<_> = forth.iter().rev().cloned().collect();
    let writes = (0..20).map(|n| {
        outbox.write(
            if n % 2 == 0 {
                forth.clone()
            } else {
                back.clone()
            },
            true,
        )
    });
    futures_util::future::join_all(writes).await;
}

#[tokio::test]
async fn a_commit_notifies_the_relay() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    // The first time it reports that it now listens.
    outbox.committed().await;
    outbox.write(vec![record("k")], false).await;
    assert!(
        outbox.committed().now_or_never().is_none(),
        "nothing was committed"
    );
    outbox.write(vec![record("k")], true).await;
    let heard = tokio::time::timeout(WITHIN, outbox.committed()).await;
    heard.expect("a commit is heard of");
}

/// The second began while the first was still registered, and would leave too if it relied on its
/// snapshot.
#[tokio::test]
async fn a_relay_waits_for_one_that_hands_over_at_once() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    for relay in ["a", "b"] {
        let registered = outbox.register(relay, Duration::from_secs(600)).await;
        registered.expect("registered");
    }
    let mut first = outbox.pool().begin().await.expect("a transaction begins");
    let leave = sqlx::query("DELETE FROM evenkeel_outbox_relay WHERE id = 'a'");
    let left = leave.execute(&mut *first).await;
    left.expect("the statement succeeds");

    let mut second = outbox.leave_to_another("b");
    let waits = "SELECT count(*) > 0 FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until_it_waits(&outbox, &mut second, waits).await;
    first.commit().await.expect("the transaction commits");
    assert!(!second.await.expect("an answer"), "it is the last one");
    let status = outbox.status().await.expect("a status");
    let registered: Vec<_> = status.relays.iter().map(|share| &*share.relay).collect();
    assert_eq!(registered, ["b"]);
}

#[tokio::test]
async fn only_an_open_transaction_that_wrote_is_named() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    let mut reader = outbox.pool().begin().await.expect("a transaction begins");
    let look = sqlx::query("SELECT 1 FROM evenkeel_outbox");
    look.execute(&mut *reader)
        .await
        .expect("the statement succeeds");
    let none = outbox
        .open_transaction(Duration::ZERO)
        .await
        .expect("the store names open transactions");
    assert_eq!(none, None);

    let mut writer = outbox.pool().begin().await.expect("a transaction begins");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *writer)
        .await
        .expect("its process");
    outbox
        .publish_records(&mut writer, &[record("k")])
        .await
        .expect("the outbox takes the records");
    let long = outbox.open_transaction(Duration::from_secs(3_600)).await;
    assert_eq!(long.expect("an answer"), None, "not old enough");
    let open = outbox
        .open_transaction(Duration::ZERO)
        .await
        .expect("the store names open transactions");
    let open = open.expect("it is open");
    assert_eq!(
        (open.pid, open.application.as_str(), open.state.as_str()),
        (pid, "evenkeel", "idle in transaction")
    );
}

#[tokio::test]
async fn a_relay_marks_all_refused_rows_in_one_statement() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    let records: Vec<_> = (0..500).map(|key| record(&key.to_string())).collect();
    outbox.write(records, true).await;
    let prepare = sqlx::raw_sql(
        "UPDATE evenkeel_outbox SET headers = 'no record of ours';
         CREATE TABLE marked (statement bigint GENERATED ALWAYS AS IDENTITY);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO marked DEFAULT VALUES; RETURN NULL; END';
         CREATE TRIGGER note AFTER UPDATE ON evenkeel_outbox FOR EACH STATEMENT EXECUTE FUNCTION note()",
    );
    prepare
        .execute(outbox.pool())
        .await
        .expect("the statement succeeds");
    // Nothing is sent, because no row can be read.
    let nowhere = KafkaConfig::new("127.0.0.1:1");
    let publisher = Publisher::new(&nowhere, PublisherSettings::new("/test"))
        .expect("the settings of the publisher are valid");
    let relay = Relay::new(outbox.clone(), publisher);
    let run = relay.drain(CancellationToken::new());
    let report = tokio::time::timeout(WITHIN, run)
        .await
        .expect("it ends in time");
    assert_eq!(report.expect("it ends well").held_keys, 500);
    let statements: i64 = sqlx::query_scalar("SELECT count(*) FROM marked")
        .fetch_one(outbox.pool())
        .await
        .expect("the query returns a row");
    assert_eq!(statements, 1);
}

#[tokio::test]
async fn a_commit_wakes_all_waiting_relays() {
    let Some(url) = database().await else { return };
    let outbox = outbox(&url).await;
    outbox.committed().await;
    let relays = [outbox.committed(), outbox.committed(), outbox.committed()];
    outbox.write(vec![record("k")], true).await;
    let heard = tokio::time::timeout(WITHIN, futures_util::future::join_all(relays)).await;
    heard.expect("all hear of it");
}

#[tokio::test]
async fn a_commit_wakes_relays_of_other_processes() {
    let Some(url) = database().await else { return };
    let (outbox, other) = (outbox(&url).await, outbox(&url).await);
    other.committed().await;
    for wakes in [false, true] {
        let listening = other.committed();
        let mut transaction = outbox.pool().begin().await.expect("a transaction begins");
        let event = [record("k")];
        let written = outbox.publish_records(&mut transaction, &event).await;
        written.expect("written");
        transaction.commit().await.expect("the transaction commits");
        if wakes {
            outbox.wake();
        }
        let heard = tokio::time::timeout(WITHIN, listening).await;
        heard.expect("a commit is heard of");
    }
}

/// A commit that waits for a standby or a disk delays no other, whatever it published.
#[tokio::test]
async fn transactions_that_publish_commit_side_by_side() {
    let started = crate::testing::TestPostgres::start().await;
    let Some(server) = crate::testing::required(started) else {
        return;
    };
    let outbox = outbox(
        &server
            .database()
            .await
            .expect("the server creates a database"),
    )
    .await;
    let set = async |value: &str| {
        let mut connection = outbox.pool().acquire().await.expect("a connection");
        for statement in [
            format!("ALTER SYSTEM SET synchronous_standby_names = '{value}'"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            let run = sqlx::raw_sql(sqlx::AssertSqlSafe(statement));
            run.execute(&mut *connection)
                .await
                .expect("the statement succeeds");
        }
    };
    let mut transactions = Vec::new();
    for key in ["a", "b"] {
        let mut transaction = outbox.pool().begin().await.expect("a transaction begins");
        let event = [record(key)];
        let written = outbox.publish_records(&mut transaction, &event).await;
        written.expect("written");
        transactions.push(transaction);
    }
    set("nobody").await;
    let waiting = async || {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
        let waiting = sqlx::query_scalar(waiting).fetch_one(outbox.pool()).await;
        waiting.expect("an answer")
    };
    // The setting takes effect a little later: from then on commits of other transactions wait as
    // well.
    let probe = tokio::spawn({
        let pool = outbox.pool().clone();
        async move {
            loop {
                let write = sqlx::raw_sql("INSERT INTO evenkeel_meta VALUES (random()::text, '')");
                write.execute(&pool).await.expect("the statement succeeds");
            }
        }
    });
    eventually("it is in force", WITHIN, || async {
        let waiting: i64 = waiting().await;
        (waiting == 1).then_some(())
    })
    .await;
    let commits = transactions.into_iter().map(sqlx::Transaction::commit);
    let commits = tokio::spawn(futures_util::future::join_all(commits));
    eventually("both wait for the standby", WITHIN, || async {
        let waiting: i64 = waiting().await;
        (waiting == 3).then_some(())
    })
    .await;
    probe.abort();
    set("").await;
    for committed in commits.await.expect("no panic") {
        committed.expect("committed");
    }
}

#[tokio::test]
async fn a_pool_of_one_connection_is_enough() {
    let Some(url) = database().await else { return };
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect(&url)
        .await
        .expect("a connection");
    let outbox = PostgresOutbox::with_pool(pool).await.expect("an outbox");
    outbox.committed().await;
    let listening = outbox.committed();
    outbox.write(vec![record("k")], true).await;
    assert_eq!(keys(&outbox).await, ["k"]);
    let heard = tokio::time::timeout(WITHIN, listening).await;
    heard.expect("a commit is heard of");
}
