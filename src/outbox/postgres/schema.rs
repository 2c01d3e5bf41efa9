//! The tables, and how they come to be.
//!
//! Owns the outbox's DDL and version. The table `evenkeel_meta` is shared with whatever else of evenkeel lives in the database.

use super::super::OutboxError;
use super::super::row::SLOTS;
use super::super::version;
use sqlx::{AssertSqlSafe, PgConnection};

/// The advisory lock of evenkeel's schema; the letters of its name.
const SCHEMA_LOCK: i64 = 0x6576_656e_6b65_656c;

/// The row of `evenkeel_meta` that holds the outbox's version.
const VERSION_NAME: &str = "outbox_version";

const META: &str = "
    CREATE TABLE IF NOT EXISTS evenkeel_meta (
        name text PRIMARY KEY,
        value text NOT NULL
    )";

/// What brings the outbox from each version to the next; the first from none to version 1. Entries are only ever added.
///
/// Rows are deleted soon after they are written: vacuum has to come by the number of dead rows, not by their share.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE evenkeel_outbox (
        sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL,
        aggregatetype text NOT NULL,
        aggregateid text,
        type text NOT NULL,
        payload bytea,
        headers text NOT NULL,
        binary_key bytea,
        partition integer,
        timestamp_ms bigint,
        key_hash bigint NOT NULL,
        slot smallint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        failure text,
        failed_at timestamptz
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
    CREATE INDEX evenkeel_outbox_failed ON evenkeel_outbox (sequence) WHERE failure IS NOT NULL;
    CREATE TABLE evenkeel_outbox_lease (
        slot smallint PRIMARY KEY,
        owner text,
        expires_at timestamptz
    );
    CREATE TABLE evenkeel_outbox_relay (
        id text PRIMARY KEY,
        expires_at timestamptz NOT NULL
    );
"];

/// The version that this release makes.
pub(super) const NEWEST: usize = MIGRATIONS.len();

/// Waits until nobody else creates or changes tables of evenkeel in the database, and keeps others from it until the transaction
/// ends: `CREATE TABLE IF NOT EXISTS` fails when two run at once, and `evenkeel_meta` is the inbox's and the outbox's.
pub(crate) async fn lock_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK);
    lock.execute(connection).await.map(drop)
}

/// Creates what is missing and checks the version, in the transaction in which `connection` is, which holds the lock of the
/// schema from then on.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<(), OutboxError> {
    let failed = OutboxError::during("prepare its tables");
    lock_schema(connection).await.map_err(&failed)?;
    let version = version(connection).await?;
    if version == NEWEST {
        return Ok(());
    }
    sqlx::raw_sql(META)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    for migration in &MIGRATIONS[version..] {
        sqlx::raw_sql(AssertSqlSafe(*migration))
            .execute(&mut *connection)
            .await
            .map_err(&failed)?;
    }
    sqlx::query("INSERT INTO evenkeel_outbox_lease (slot) SELECT generate_series(0, $1) ON CONFLICT DO NOTHING")
        .bind(i32::from(SLOTS) - 1)
        .execute(&mut *connection)
        .await
        .map_err(&failed)?;
    sqlx::query(
        "INSERT INTO evenkeel_meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(VERSION_NAME)
    .bind(NEWEST.to_string())
    .execute(connection)
    .await
    .map_err(&failed)?;
    Ok(())
}

/// The version that stands in the database, 0 without an outbox; an error for one that this release does not know.
pub(super) async fn version(connection: &mut PgConnection) -> Result<usize, OutboxError> {
    let failed = OutboxError::during("read its version");
    let known: bool = sqlx::query_scalar("SELECT to_regclass('evenkeel_meta') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    if !known {
        return Ok(0);
    }
    let stored: Option<String> =
        sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = $1")
            .bind(VERSION_NAME)
            .fetch_optional(connection)
            .await
            .map_err(&failed)?;
    version::check(stored.as_deref(), NEWEST)
}
