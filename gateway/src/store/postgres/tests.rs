//! PostgreSQL passes the suite, directly and through a pooler, and its own cases: locks, refused
//! rows, migrations, the purge, and two gateways.

use super::super::conformance::{self, Subject, TOPIC, WITHIN, claim, event, keyed, request};
use super::super::error::{AcceptError, StoreError};
use super::super::maintenance::now_ms;
use super::super::port::{AcceptStore, Accepted};
use super::super::settings::StoreSettings;
use super::store::{BEGIN, BEGIN_POOLED};
use super::{PostgresStore, PostgresStoreSettings};
use evenkeel::event::new_id;
use evenkeel::inbox::BoxFuture;
use evenkeel::outbox::PostgresOutbox;
use evenkeel::postgres::Migration;
use evenkeel::testing::{TestPgBouncer, eventually, postgres, required};
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use std::sync::Arc;
use std::time::Duration;

struct InDatabase {
    store: Arc<PostgresStore>,
    /// The address of the server itself.
    url: String,
}

/// The URL of an empty database; `None` without PostgreSQL.
async fn database() -> Option<String> {
    let postgres = postgres().await?;
    Some(postgres.database().await.expect("an empty database"))
}

impl InDatabase {
    async fn open(url: &str) -> Self {
        let store = PostgresStore::open(url).await.expect("the store opens");
        Self {
            store: Arc::new(store),
            url: url.to_owned(),
        }
    }

    /// A connection of another program.
    async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url)
            .await
            .expect("the server answers")
    }
}

impl Subject for InDatabase {
    fn store(&self) -> Arc<dyn AcceptStore> {
        self.store.clone()
    }

    fn records(&self) -> BoxFuture<'_, Vec<(String, String)>> {
        Box::pin(async move {
            let mut connection = self.connection().await;
            let records = "SELECT aggregateid, convert_from(payload, 'UTF8') FROM evenkeel_outbox
                           WHERE aggregatetype = $1 ORDER BY sequence";
            let records = sqlx::query_as(records)
                .bind(TOPIC)
                .fetch_all(&mut connection)
                .await;
            records.expect("the query returns rows")
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract() {
    let Some(url) = database().await else { return };
    conformance::check(&InDatabase::open(&url).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_the_contract_through_a_pooler() {
    let Some(server) = postgres().await else {
        return;
    };
    let Some(pooler) = required(TestPgBouncer::start(server, 3).await) else {
        return;
    };
    let url = server.database().await.expect("an empty database");
    let pooled = format!("{}&pgbouncer=true", pooler.url(&url));
    let store = PostgresStore::open(&pooled).await.expect("the store opens");
    let subject = InDatabase {
        store: Arc::new(store),
        url,
    };
    conformance::check(&subject).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_database() {
    let Some(url) = database().await else { return };
    // Both create the tables.
    let (one, other) = tokio::join!(InDatabase::open(&url), InDatabase::open(&url));
    conformance::check_shared(&one, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_gateway_writes_is_in_progress() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    let mut other = subject.connection().await;
    let first = keyed(claim("shop", "a", 1), vec![event("k", "1", "1")]);
    let hash = super::statements::hash(&claim("shop", "a", 1));
    let mut writing = other.begin().await.expect("a transaction begins");
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(hash);
    lock.execute(&mut *writing)
        .await
        .expect("the key is locked");
    // Others of the group are written meanwhile.
    let calls = [
        subject.store.accept(first.clone()),
        subject
            .store
            .accept(keyed(claim("shop", "b", 1), vec![event("k", "2", "1")])),
    ];
    let outcomes = join_all(calls).await;
    assert!(
        matches!(outcomes[0], Err(AcceptError::InProgress)),
        "{outcomes:?}"
    );
    assert!(matches!(outcomes[1], Ok(Accepted::New)), "{outcomes:?}");
    writing.rollback().await.expect("the lock is released");
    let accepted = subject.store.accept(first).await.expect("it is accepted");
    assert_eq!(accepted, Accepted::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_refused_does_not_fail_its_group() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    // Too long for an index, and not compressible.
    let noise = |n: u32| format!("{:x}", Sha256::digest(n.to_be_bytes()));
    let long: String = (0..600).map(noise).collect();
    let ids = [new_id(), new_id(), long, new_id()];
    let calls = ids
        .iter()
        .map(|id| subject.store.accept(request(vec![event("k", id, "1")])));
    let outcomes = join_all(calls).await;
    for (outcome, is_refused) in outcomes.iter().zip([false, false, true, false]) {
        let as_expected = match outcome {
            Ok(Accepted::New) => !is_refused,
            Err(AcceptError::Rejected(_)) => is_refused,
            _ => false,
        };
        assert!(as_expected, "{outcomes:?}");
    }
    assert_eq!(subject.records().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_record_key_holds_up_only_its_requests() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    let outbox = subject.store.outbox();
    let mut other = outbox.pool().begin().await.expect("a transaction begins");
    let record = event("blocked", "0", "0").record;
    let written = outbox.publish_records(&mut other, &[record]).await;
    written.expect("another service publishes on the key");
    let calls = ["free-1", "blocked", "free-2"].map(|key| {
        subject
            .store
            .accept(request(vec![event(key, &new_id(), "1")]))
    });
    let outcomes = join_all(calls).await;
    let is_ok: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(is_ok, [true, false, true], "{outcomes:?}");
    let blocked = outcomes[1].as_ref().expect_err("it is blocked");
    assert!(
        matches!(blocked, AcceptError::Unavailable { .. }),
        "{blocked:?}"
    );
    other.rollback().await.expect("the lock is released");
    let later = subject
        .store
        .accept(request(vec![event("blocked", &new_id(), "1")]))
        .await;
    assert!(later.is_ok(), "{later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_server_that_refuses_writes_are_replaced() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    let outbox = subject.store.outbox();
    let mut connections = Vec::new();
    for _ in 0..outbox.pool().options().get_max_connections() {
        let connection = outbox.pool().acquire().await;
        connections.push(connection.expect("a free connection"));
    }
    for connection in &mut connections {
        // As if the server had become a replica.
        let refusing = sqlx::raw_sql("SET default_transaction_read_only = on")
            .execute(&mut **connection)
            .await;
        refusing.expect("the setting is changed");
    }
    drop(connections);
    eventually("posts are accepted again", WITHIN, || async {
        let posted = request(vec![event("k", &new_id(), "1")]);
        subject.store.accept(posted).await.ok()
    })
    .await;
}

#[tokio::test]
async fn purged_identities_are_new_again() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    let first = || keyed(claim("shop", "a", 1), vec![event("k", "1", "1")]);
    let many = (0..2_500)
        .map(|n: u32| event("k", &format!("many-{n}"), "1"))
        .collect();
    let accepted = subject.store.accept(request(many)).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    for (before_ms, records) in [(0, 2_501), (now_ms() + 60_000, 2_502)] {
        let accepted = subject.store.accept(first()).await;
        assert!(accepted.is_ok(), "{accepted:?}");
        subject.store.purge_before(before_ms).await;
        let accepted = subject.store.accept(first()).await.expect("it is accepted");
        assert_eq!(accepted == Accepted::New, before_ms > 0, "{accepted:?}");
        assert_eq!(subject.records().await.len(), records);
    }
    let many = subject
        .store
        .find("many-2499", None)
        .await
        .expect("the store answers");
    assert!(many.is_empty(), "{many:?}");
}

#[tokio::test]
async fn tables_are_left_to_the_teams_own_migrations() {
    let Some(url) = database().await else { return };
    let elsewhere = PostgresStoreSettings::default().with_migration(Migration::Elsewhere);
    let open = async || PostgresStore::open_with(&url, elsewhere.clone()).await;
    let run = async |sql: String| {
        let mut connection = PgConnection::connect(&url)
            .await
            .expect("the server answers");
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut connection)
            .await;
        run.expect("the statements succeed");
    };
    let refused = open().await.expect_err("there are no tables");
    assert!(matches!(refused, StoreError::Outbox(_)), "{refused:?}");
    run(PostgresOutbox::migration_sql(0)).await;
    let refused = open()
        .await
        .expect_err("there are no tables of the gateway");
    assert!(matches!(refused, StoreError::NoTables), "{refused:?}");
    for _ in 0..2 {
        run(PostgresStore::migration_sql().to_owned()).await;
    }
    let store = open().await.expect("the store opens");
    let accepted = store.accept(request(vec![event("k", "1", "1")])).await;
    assert!(accepted.is_ok(), "{accepted:?}");
}

#[tokio::test]
async fn a_full_queue_refuses_while_the_database_is_busy() {
    let Some(url) = database().await else { return };
    let few = StoreSettings::default().with_queue_requests_max(5);
    let store = PostgresStore::open_with(&url, &few)
        .await
        .expect("the store opens");
    let subject = InDatabase {
        store: Arc::new(store),
        url,
    };
    let mut other = subject.connection().await;
    let mut lock = other.begin().await.expect("a transaction begins");
    let lock_table = sqlx::raw_sql("LOCK TABLE gateway_events")
        .execute(&mut *lock)
        .await;
    lock_table.expect("the table is locked");
    let calls = (0..300).map(|_| {
        subject
            .store
            .accept(request(vec![event("k", &new_id(), "1")]))
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lock.rollback().await.expect("the lock is released");
    };
    let (outcomes, ()) = tokio::join!(join_all(calls), release);
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let full = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(AcceptError::Full { .. })))
        .count();
    assert!(
        accepted >= 5 && full > 0,
        "{accepted} accepted, {full} refused"
    );
    assert_eq!(
        (accepted + full, subject.records().await.len()),
        (300, accepted)
    );
}

#[tokio::test]
async fn an_old_held_key_does_not_make_the_backlog_large() {
    let Some(url) = database().await else { return };
    let subject = InDatabase::open(&url).await;
    let held = request(vec![event("held", "1", "1")]);
    let accepted = subject.store.accept(held).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    // As if three million events were published since then.
    let mark = "UPDATE evenkeel_outbox SET failure = 'too large', failed_at = now(),
                    created_at = now() - interval '1 day';
                SELECT setval(pg_get_serial_sequence('evenkeel_outbox', 'sequence'), 3000000)";
    let mut connection = subject.connection().await;
    sqlx::raw_sql(mark)
        .execute(&mut connection)
        .await
        .expect("the row is marked");
    let many = (0..2_500)
        .map(|n: u32| event("free", &format!("many-{n}"), "1"))
        .collect();
    let accepted = subject.store.accept(request(many)).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let measured = eventually("the new events are counted", WITHIN, || async {
        let backlog = subject.store.backlog();
        (backlog.events == 2_500).then_some(backlog)
    });
    let oldest = measured.await.oldest_age.expect("events wait");
    assert!(oldest < WITHIN, "{oldest:?}");
}

#[tokio::test]
async fn the_server_ends_a_transaction_of_a_lost_gateway() {
    let Some(url) = database().await else { return };
    for begin in [BEGIN, BEGIN_POOLED] {
        let connection = PgConnection::connect(&url).await;
        let mut connection = connection.expect("the server answers");
        let transaction = connection.begin_with(begin).await;
        let mut transaction = transaction.expect("a transaction begins");
        let limit: String = sqlx::query_scalar("SHOW idle_in_transaction_session_timeout")
            .fetch_one(&mut *transaction)
            .await
            .expect("the setting has a value");
        assert_eq!(limit, "15s", "{begin}");
    }
}
