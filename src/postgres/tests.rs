//! Inbox and outbox through a pooler that assigns server connections per transaction, over TLS, on
//! a pool of the service, on tables that another program created, and on a server that can only be
//! read for a while; and the isolation of handlers' settings.

use super::Migration;
use crate::event::{Headers, OutgoingRecord};
use crate::inbox::postgres::tests::{EFFECTS, Table, fresh, key, transaction, write};
use crate::inbox::{
    Claim, Claimed, Inbox, InboxError, PostgresInbox, PostgresSettings, conformance,
};
use crate::outbox::{
    OutboxStore, PostgresOutbox, PostgresOutboxSettings, conformance as outbox_conformance,
};
use crate::testing::{TestPgBouncer, TestPostgres, eventually, postgres, required};
use futures_util::future::join_all;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

fn settings() -> PostgresSettings {
    PostgresSettings::new(EFFECTS)
}

async fn claim(inbox: &PostgresInbox, id: &str) -> Result<Option<Box<dyn Claim>>, InboxError> {
    Ok(match inbox.claim(&key(id)).await? {
        Claimed::Fresh(claim) => Some(claim),
        Claimed::Duplicate { .. } => None,
    })
}

/// Has the effect `id`, unless it exists already.
async fn handle(inbox: &PostgresInbox, id: &str) -> Result<(), InboxError> {
    let Some(mut claim) = claim(inbox, id).await? else {
        return Ok(());
    };
    let written = write(&mut transaction(&mut claim), id).await;
    written.expect("written");
    claim.complete(Vec::new()).await.map(drop)
}

/// How often each effect exists, and how many effects there are.
async fn effects(inbox: &PostgresInbox) -> (i64, i64) {
    let mut transaction = inbox.pool().begin().await.expect("a transaction begins");
    let count = "SELECT count(*), count(DISTINCT name) FROM effects";
    let count = sqlx::query_as(count).persistent(false);
    let count = count.fetch_one(&mut *transaction).await;
    count.expect("readable")
}

/// A pooler with few server connections, and the URL of an empty database through it.
async fn pooler() -> Option<(TestPgBouncer, String)> {
    let postgres = postgres().await?;
    let pooler = required(TestPgBouncer::start(postgres, 3).await)?;
    let url = pooler.url(
        &postgres
            .database()
            .await
            .expect("the server creates a database"),
    );
    Some((pooler, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_keep_their_contracts_through_a_pooler() {
    let Some((_pooler, url)) = pooler().await else {
        return;
    };
    let url = format!("{url}&pgbouncer=true");
    let few = settings().with_connections(2);
    let inbox = PostgresInbox::open_with(&url, &few)
        .await
        .expect("the store opens");
    let table = Table(inbox.clone());
    conformance::check(Arc::new(inbox.clone()), Some(Arc::new(table))).await;
    let outbox = PostgresOutbox::open(&url).await.expect("the outbox opens");
    outbox_conformance::check(&outbox, &outbox).await;
    let status = OutboxStore::from(outbox)
        .status()
        .await
        .expect("the outbox reports its status");
    assert_eq!(status.pending, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_members_share_few_connections_of_a_pooler() {
    let Some((_pooler, url)) = pooler().await else {
        return;
    };
    let pooled = settings().with_pgbouncer(true).with_connections(2);
    let members = (0..4).map(|_| PostgresInbox::open_with(&url, &pooled));
    let members: Vec<_> = join_all(members).await.into_iter().collect();
    let members: Vec<_> = members.into_iter().map(|m| m.expect("a store")).collect();
    // Each event is delivered to two members.
    let events = (0..800).map(|n| (n.to_string(), members[n % 4].clone()));
    let again = (0..800).map(|n| (n.to_string(), members[(n + 1) % 4].clone()));
    let handled = events.chain(again).map(async |(id, inbox)| {
        loop {
            match handle(&inbox, &id).await {
                Err(InboxError::TryAgain(_)) => {}
                done => return done,
            }
        }
    });
    for done in join_all(handled).await {
        done.expect("handled");
    }
    assert_eq!(effects(&members[0]).await, (800, 800));
    let purged = members[0].purge(std::time::Duration::ZERO, 100).await;
    assert_eq!(purged.expect("purged"), 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undeclared_pooler_is_named_in_the_error() {
    let Some((_pooler, url)) = pooler().await else {
        return;
    };
    let opened = async || {
        let inbox = PostgresInbox::open_with(&url, &settings()).await?;
        let settled = (0..50).map(async |n| match claim(&inbox, &n.to_string()).await? {
            Some(claim) => claim.complete(Vec::new()).await.map(drop),
            None => Ok(()),
        });
        for settled in join_all(settled).await {
            settled?;
        }
        Ok(inbox)
    };
    // Which statement meets the other's first is chance; eventually one does.
    let mut stores = Vec::new();
    for _ in 0..20 {
        let result: Result<PostgresInbox, InboxError> = opened().await;
        match result {
            Ok(store) => stores.push(store),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("pgbouncer=true"), "{text}");
                return;
            }
        }
    }
    panic!("a pooler gave each client connections of its own");
}

/// The settings of another handler that a handler can find.
const FOUND: &str = "
    SELECT concat_ws(' ', coalesce(nullif(current_setting('app.tenant', true), ''), 'none'),
                     current_setting('statement_timeout'), current_setting('search_path'),
                     current_user = session_user)";

const LEAVE: &str = "
    SET app.tenant = 'a'; SET LOCAL statement_timeout = '7min'; SET search_path = elsewhere; SET ROLE pg_monitor";

fn reply() -> OutgoingRecord {
    OutgoingRecord {
        topic: "replies".to_owned(),
        partition: None,
        key: Some("k".into()),
        value: Some("{}".into()),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

/// The settings found by each of several events that share connections and each change some.
async fn found(inbox: &PostgresInbox) -> Vec<String> {
    let handle = async |id: String| {
        let mut claim = fresh(inbox, &id).await;
        let mut tx = transaction(&mut claim);
        let found = sqlx::query_scalar(FOUND).fetch_one(&mut *tx).await;
        let leave = sqlx::raw_sql(LEAVE).execute(&mut *tx).await;
        leave.expect("set");
        drop(tx);
        // The store's own statements write it; those settings would redirect them.
        let completed = claim.complete(vec![reply()]).await;
        (found.expect("settings"), completed)
    };
    let mut all = Vec::new();
    for round in 0..2 {
        let handled = (0..6).map(|n| handle(format!("{round}-{n}")));
        for (found, completed) in join_all(handled).await {
            completed.expect("completed");
            all.push(found);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handler_sees_settings_of_another() {
    let Some(server) = postgres().await else {
        return;
    };
    let database = async || {
        server
            .database()
            .await
            .expect("the server creates a database")
    };
    let clean = vec!["none 0 \"$user\", public t"; 12];
    let one = settings().with_connections(1);
    let inbox = PostgresInbox::open_with(&database().await, &one).await;
    assert_eq!(found(&inbox.expect("a store")).await, clean);
    // With an outbox too.
    let url = database().await;
    let inbox = PostgresInbox::open_with(&url, &one)
        .await
        .expect("the store opens");
    let outbox = PostgresOutbox::open(&url).await.expect("the outbox opens");
    let inbox = inbox.with_outbox(outbox.clone()).expect("of one database");
    assert_eq!(found(&inbox).await, clean);
    let status = OutboxStore::from(outbox)
        .status()
        .await
        .expect("the outbox reports its status");
    assert_eq!(status.pending, 12);
    // Settings from the start of the connection stay.
    let url = format!("{}?options=-c%20app.tenant%3Dz", database().await);
    let inbox = PostgresInbox::open_with(&url, &one)
        .await
        .expect("the store opens");
    assert!(found(&inbox).await.iter().all(|set| set.starts_with("z 0")));
    // On the service's own pool the reset must be enabled.
    let pool = PgPoolOptions::new().max_connections(3);
    let pool = pool.connect(&database().await).await.expect("a pool");
    let reset = one.clone().with_reset_session(true);
    let inbox = PostgresInbox::with_pool(pool, &reset)
        .await
        .expect("a store");
    assert_eq!(found(&inbox).await, clean);
    let Some(pooler) = required(TestPgBouncer::start(server, 2).await) else {
        return;
    };
    let url = pooler.url(&database().await);
    let inbox = PostgresInbox::open_with(&url, &one.clone().with_pgbouncer(true)).await;
    assert_eq!(found(&inbox.expect("a store")).await, clean);
}

#[tokio::test]
async fn settings_of_the_services_pool_are_kept() {
    let Some(server) = postgres().await else {
        return;
    };
    let pool = PgPoolOptions::new()
        .max_connections(3)
        .after_connect(|connection, _| {
            Box::pin(async move {
                let set = sqlx::raw_sql("SET app.tenant = 'z'").execute(connection);
                set.await.map(drop)
            })
        });
    let url = server
        .database()
        .await
        .expect("the server creates a database");
    let pool = pool.connect(&url).await.expect("a pool");
    let inbox = PostgresInbox::with_pool(pool, &settings().with_connections(1)).await;
    let inbox = inbox.expect("a store");
    for id in ["1", "2"] {
        let mut claim = fresh(&inbox, id).await;
        let mut tx = transaction(&mut claim);
        let found = sqlx::query_scalar(FOUND).fetch_one(&mut *tx).await;
        let found: String = found.expect("settings");
        assert!(found.starts_with("z 0"), "{found}");
        drop(tx);
        claim
            .complete(Vec::new())
            .await
            .expect("the claim completes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stores_connect_by_tls_and_check_the_certificate() {
    let Some(server) = required(TestPostgres::start_with_tls().await) else {
        return;
    };
    let url = server
        .database()
        .await
        .expect("the server creates a database");
    let inbox = PostgresInbox::open_with(&url, &settings())
        .await
        .expect("the store opens");
    handle(&inbox, "1").await.expect("handled");
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let encrypted: bool = sqlx::query_scalar(encrypted)
        .fetch_one(inbox.pool())
        .await
        .expect("the query returns a row");
    assert!(encrypted);
    PostgresOutbox::open(&url).await.expect("the outbox opens");
    let (place, _) = url.split_once('?').expect("parameters");
    for (parameters, reason) in [
        ("sslmode=verify-full", "sslrootcert"),
        ("sslmode=disable", "pg_hba.conf"),
    ] {
        let refused = PostgresInbox::open_with(&format!("{place}?{parameters}"), &settings()).await;
        let Err(error) = refused else {
            panic!("{parameters}: it was opened");
        };
        let text = with_sources(&error);
        assert!(text.contains(reason), "{parameters}: {text}");
    }
}

/// An error with its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| {
        format!("{text}: {source}")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_can_be_created_by_another_program() {
    let Some(server) = postgres().await else {
        return;
    };
    let url = server
        .database()
        .await
        .expect("the server creates a database");
    let mut owner = PgConnection::connect(&url)
        .await
        .expect("the server takes a connection");
    let role = crate::testing::unique("service").replace('-', "_");
    let make = format!(
        "BEGIN; {inbox} {outbox} {EFFECTS}; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; COMMIT",
        inbox = PostgresInbox::migration_sql(),
        outbox = PostgresOutbox::migration_sql(0),
    );
    let login = sqlx::raw_sql(AssertSqlSafe(format!("CREATE ROLE {role} LOGIN")));
    login.execute(&mut owner).await.expect("a role");
    let options = PgConnectOptions::from_str(&url)
        .expect("a URL")
        .username(&role);
    let elsewhere = settings().with_migration(Migration::Elsewhere);
    let outbox_elsewhere = PostgresOutboxSettings::default().with_migration(Migration::Elsewhere);
    let refused = PostgresInbox::connect(options.clone(), &elsewhere).await;
    let refused = refused.expect_err("there are no tables").to_string();
    assert!(refused.contains("store migrate"), "{refused}");
    let refused = PostgresOutbox::connect(options.clone(), &outbox_elsewhere).await;
    let refused = refused.expect_err("there are no tables").to_string();
    assert!(refused.contains("store migrate"), "{refused}");
    let make = sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut owner).await;
    make.expect("made");
    let inbox = PostgresInbox::connect(options.clone(), &elsewhere).await;
    let inbox = inbox.expect("a store");
    handle(&inbox, "1").await.expect("handled");
    assert_eq!(effects(&inbox).await, (1, 1));
    let pool = PgPoolOptions::new()
        .connect_with(options)
        .await
        .expect("a pool");
    let outbox = PostgresOutbox::with_pool_and_settings(pool, &outbox_elsewhere).await;
    let outbox = outbox.expect("an outbox");
    inbox.with_outbox(outbox).expect("of one database");
}

/// Sets whether the database's new sessions can only read.
async fn set_read_only(operator: &mut PgConnection, database: &str, value: &str) {
    let set = format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = {value}");
    let set = sqlx::raw_sql(AssertSqlSafe(set)).execute(operator).await;
    set.expect("the setting changes");
}

/// After a failover an address leads to a server that can be written, but the connections to the
/// old one may stay open. The setting concerns new connections only, like the address.
#[tokio::test]
async fn a_connection_that_can_only_read_is_replaced() {
    let Some(server) = postgres().await else {
        return;
    };
    let url = server.database().await.expect("an empty database");
    let owner = PostgresInbox::open(&url, EFFECTS).await.expect("a store");
    PostgresOutbox::open(&url).await.expect("the outbox opens");
    let mut operator = owner.pool().acquire().await.expect("a connection");
    let name: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut *operator)
        .await
        .expect("a name");
    set_read_only(&mut operator, &name, "on").await;
    let elsewhere = settings().with_migration(Migration::Elsewhere);
    let inbox = PostgresInbox::open_with(&url, &elsewhere).await;
    let inbox = inbox.expect("nothing is written");
    let outbox_elsewhere = PostgresOutboxSettings::default().with_migration(Migration::Elsewhere);
    let outbox = PostgresOutbox::open_with(&url, &outbox_elsewhere).await;
    let outbox = outbox.expect("nothing is written");
    let publish = async || {
        let mut transaction = outbox.pool().begin().await.ok()?;
        let records = [reply()];
        let published = outbox.publish_records(&mut transaction, &records).await;
        published.ok()?;
        transaction.commit().await.ok()
    };
    let refused = handle(&inbox, "1").await.expect_err("it can only read");
    assert!(matches!(refused, InboxError::NotWritable(_)), "{refused:?}");
    assert_eq!(publish().await, None, "it can only read");
    set_read_only(&mut operator, &name, "off").await;
    let within = Duration::from_secs(20);
    eventually("the inbox is written", within, async || {
        handle(&inbox, "1").await.ok()
    })
    .await;
    eventually("the outbox is written", within, publish).await;
}
