//! An inbox that has completed deliveries already: does a claim cost more in a large table?
//!
//! The rows are those of the worse case. In SQLite they have the group, handler and source of the
//! new ones, so that new rows go between them; rows of another group or handler are in another
//! part of the tree, and new ones would all go to the same few pages. For the same reason the
//! events have derived ids, as those that handlers publish: ids of [`evenkeel::event::new_id`]
//! begin with the time, so that one follows the other. In PostgreSQL the key is a digest, so every
//! new row has a place of its own, whatever its group and id are.
//!
//! Rows are inserted in the order of their key, evenly spread over all keys: in random order, each
//! would need another page of a table that is larger than the cache. In SQLite that takes two
//! passes, since a tree that grows at its end only has full pages, which an inbox does not have.
//! A row takes 260 bytes and about 4 µs in SQLite: 3 GB and a minute for ten million. It takes
//! about 280 bytes and 15 µs in PostgreSQL, which has 1 GB of log besides: 4 GB and three minutes.
//!
//! The filled tables are on the disk before the measurement starts, and PostgreSQL has vacuumed
//! and analysed them, which it would do in the background otherwise.

use super::point::Point;
use crate::order_event::{OrderEvent, SOURCE};
use crate::spec::{Data, Form, Spec, Turn};
use crate::workloads::stores::effects;
use crate::workloads::stores::handlers::CommitMode;
use crate::workloads::stores::store::{Place, Store, StoreKind, sqlite_file};
use anyhow::Context;
use evenkeel::event::EventType;
use evenkeel::inbox::{PostgresInbox, SqliteInbox};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, PgConnection, SqliteConnection};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const POINTS: [Point; 6] = [
    Point::new("rows-1k-postgres", 1_000, "1,000").on(StoreKind::Postgres),
    Point::new("rows-1m-postgres", 1_000_000, "1 million").on(StoreKind::Postgres),
    Point::new("rows-10m-postgres", 10_000_000, "10 million").on(StoreKind::Postgres),
    Point::new("rows-1k-sqlite", 1_000, "1,000").on(StoreKind::Sqlite),
    Point::new("rows-1m-sqlite", 1_000_000, "1 million").on(StoreKind::Sqlite),
    Point::new("rows-10m-sqlite", 10_000_000, "10 million").on(StoreKind::Sqlite),
];

pub(super) const DATA: Data = Data {
    form: Form::Derived,
    ..effects::DATA
};

/// Keys begin with 32 bits that are evenly spread: the row's number times a step.
const FIRST_BITS: i64 = 1 << 32;

/// Numbers of one transaction in SQLite, of which a pass has each second one. Bounds the log.
const STEP: i64 = 200_000;

/// Milliseconds for which the last row has been completed.
const AGE_MS: i64 = 24 * 60 * 60 * 1_000;

/// The row numbers from `?1` to `?2`, each second one. Ids have the form of derived ones.
const INTO_SQLITE: &str = "
    INSERT INTO evenkeel_inbox (consumer_group, handler, source, id, completed_at, content)
    WITH RECURSIVE numbers (n) AS (
        SELECT ?1 UNION ALL SELECT n + 2 FROM numbers WHERE n + 2 < ?2)
    SELECT ?3, ?4, ?5, printf('%08x-0000-5000-8000-%012x', n * ?6, n), ?7 + n, randomblob(16)
    FROM numbers";

/// A digest of the delivery has 32 bytes without order; here they are a place and a digest.
const INTO_POSTGRES: &str = "
    INSERT INTO evenkeel_inbox
        (digest, consumer_group, handler, source, id, completed_at, content)
    SELECT substr(int8send(n * $1::bigint), 5) || substr(sha256(int8send(n)), 5),
        $2::text, $3::text, $4::text, md5(n::text)::uuid::text,
        to_timestamp(($5::bigint + n) / 1000.0), substr(sha256(int8send(n)), 17)
    FROM generate_series(0, $6::bigint - 1) AS n";

pub(super) async fn turn(spec: &Spec, point: &Point) -> anyhow::Result<Turn> {
    let store = Store::create(point.store.context("the inbox is in a store")?).await?;
    let rows = i64::try_from(point.x)?;
    match store.place() {
        Place::Sqlite(folder) => fill_sqlite(sqlite_file(folder), store.group(), rows).await?,
        Place::Postgres { url, .. } => fill_postgres(url, store.group(), rows).await?,
    }
    effects::measure(spec, CommitMode::Group, &store).await
}

/// Creates the inbox of this group in SQLite with so many rows.
async fn fill_sqlite(file: PathBuf, group: &str, rows: i64) -> anyhow::Result<()> {
    let inbox = SqliteInbox::open(&file, group, "").await?;
    inbox.close().await;
    let mut connection = connect_without_waits(&file).await?;
    let first_ms = now_ms()? - AGE_MS - 2 * rows;
    for pass in 0..2 {
        for first in (pass..rows).step_by(STEP as usize) {
            sqlx::query(INTO_SQLITE)
                .bind(first)
                .bind(rows.min(first + STEP))
                .bind(group)
                .bind(OrderEvent::TYPE)
                .bind(SOURCE)
                .bind(FIRST_BITS / rows)
                .bind(first_ms + pass * rows)
                .execute(&mut connection)
                .await?;
        }
    }
    let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)");
    checkpoint.execute(&mut connection).await?;
    connection.close().await?;
    // Without a wait for the disk so far, whose work would be part of the measurement.
    tokio::task::spawn_blocking(move || File::open(file)?.sync_all()).await??;
    Ok(())
}

/// A connection that never waits for the disk, with a cache of 256 MiB.
async fn connect_without_waits(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Off)
        .pragma("cache_size", "-262144");
    SqliteConnection::connect_with(&options).await
}

/// Creates the inbox in PostgreSQL with so many rows of this group.
async fn fill_postgres(url: &str, group: &str, rows: i64) -> anyhow::Result<()> {
    PostgresInbox::open(url, "").await?;
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(INTO_POSTGRES)
        .bind(FIRST_BITS / rows)
        .bind(group)
        .bind(OrderEvent::TYPE)
        .bind(SOURCE)
        .bind(now_ms()? - AGE_MS - rows)
        .bind(rows)
        .execute(&mut connection)
        .await?;
    for settle in ["VACUUM (ANALYZE) evenkeel_inbox", "CHECKPOINT"] {
        sqlx::raw_sql(settle).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}

fn now_ms() -> anyhow::Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(now.as_millis())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::inbox::{Completions, InboxKey, SqliteCompletions};

    const GROUP: &str = "bench-rows";
    /// More than the rows of a transaction.
    const ROWS: i64 = STEP + 11;

    #[tokio::test]
    async fn sqlite_has_rows_between_which_new_ones_go() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let file = sqlite_file(&folder);
        fill_sqlite(file.clone(), GROUP, ROWS)
            .await
            .expect("filled");
        let mut connection = connect_without_waits(&file).await.expect("opened");
        let found: (i64, String, String, i64) = sqlx::query_as(
            "SELECT count(*), min(id), max(id), min(length(id)) FROM evenkeel_inbox
             WHERE consumer_group = 'bench-rows' AND handler = 'bench.sample.v1'
                 AND source = '/bench/samples' AND completed_at > 0 AND length(content) = 16",
        )
        .fetch_one(&mut connection)
        .await
        .expect("the inbox has its table");
        let (rows, first, last, shortest) = found;
        assert_eq!((rows, shortest), (ROWS, 36));
        assert!(
            first.starts_with("00000000-") && last.starts_with("fff"),
            "{first} {last}"
        );
    }

    #[tokio::test]
    async fn a_filled_row_is_a_completed_delivery() {
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        let file = sqlite_file(&folder);
        fill_sqlite(file.clone(), GROUP, 2).await.expect("filled");
        let store = SqliteCompletions::open(&file, GROUP).await;
        let store = store.expect("it is a store of this release");
        let key = |id| InboxKey::new(GROUP, OrderEvent::TYPE, SOURCE, id);
        let keys = [
            key("80000000-0000-5000-8000-000000000001"),
            key("80000000-0000-5000-8000-000000000002"),
        ];
        let known = store.completed(&keys).await.expect("it can be read");
        let known: Vec<bool> = known.iter().map(Option::is_some).collect();
        assert_eq!(known, [true, false]);
    }

    #[tokio::test]
    async fn postgres_has_rows_with_keys_of_their_own() {
        let Some(server) = evenkeel::testing::postgres().await else {
            return;
        };
        let url = server.database().await.expect("a database");
        fill_postgres(&url, GROUP, 1_000).await.expect("filled");
        let mut connection = PgConnection::connect(&url).await.expect("opened");
        let found: (i64, i32, String, String) = sqlx::query_as(
            "SELECT count(*), min(length(digest)), min(encode(digest, 'hex')),
                 max(encode(digest, 'hex'))
             FROM evenkeel_inbox WHERE consumer_group = 'bench-rows'
                 AND completed_at < now() AND length(content) = 16 AND length(id) = 36",
        )
        .fetch_one(&mut connection)
        .await
        .expect("the inbox has its table");
        let (rows, shortest, first, last) = found;
        assert_eq!((rows, shortest), (1_000, 32));
        assert!(
            first.starts_with("00000000") && last.starts_with("ff"),
            "{first} {last}"
        );
    }
}
