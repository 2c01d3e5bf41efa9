//! Creates and upgrades the tables.
//!
//! Owns the outbox's DDL and version. The table `evenkeel_meta` is shared with the other tables of
//! evenkeel in the file.
//!
//! Versions and columns are those of PostgreSQL, so operators find the same names. Under the write
//! lock of the caller's transaction no two processes upgrade at once.

use super::super::OutboxError;
use super::super::row::SLOTS;
use super::super::version;
use sqlx::{AssertSqlSafe, SqliteConnection};

/// The row of `evenkeel_meta` that holds the outbox's version.
const VERSION_NAME: &str = "outbox_version";

/// The table that holds the versions. Also created by the inbox, in the same form.
const META: &str = "
    CREATE TABLE IF NOT EXISTS evenkeel_meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID";

/// The upgrade from each version to the next; the first creates version 1. Entries are only ever
/// added.
///
/// `AUTOINCREMENT` because the number of a deleted row must not be reused: a relay may still know
/// it.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE evenkeel_outbox (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL,
        aggregatetype TEXT NOT NULL,
        aggregateid TEXT,
        type TEXT NOT NULL,
        payload BLOB,
        headers TEXT NOT NULL,
        binary_key BLOB,
        \"partition\" INTEGER,
        timestamp_ms INTEGER,
        key_hash INTEGER NOT NULL,
        slot INTEGER NOT NULL,
        created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER)),
        failure TEXT,
        failed_at INTEGER
    );
    CREATE INDEX evenkeel_outbox_failed ON evenkeel_outbox (sequence) WHERE failure IS NOT NULL;
    CREATE TABLE evenkeel_outbox_lease (
        slot INTEGER PRIMARY KEY,
        owner TEXT,
        expires_at INTEGER
    );
    CREATE TABLE evenkeel_outbox_relay (
        id TEXT PRIMARY KEY,
        expires_at INTEGER NOT NULL
    ) WITHOUT ROWID;
"];

/// The version that this release creates.
pub(super) const NEWEST: usize = MIGRATIONS.len();

/// Creates missing tables and checks the version, in the transaction of `connection`.
///
/// # Errors
/// [`OutboxError::Foreign`] for a newer version, before anything is changed.
pub(crate) async fn prepare(connection: &mut SqliteConnection) -> Result<(), OutboxError> {
    let failed = OutboxError::during("prepare its tables");
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
    sqlx::query(
        "WITH RECURSIVE slots (slot) AS (SELECT 0 UNION ALL SELECT slot + 1 FROM slots WHERE slot + 1 < ?)
         INSERT OR IGNORE INTO evenkeel_outbox_lease (slot) SELECT slot FROM slots",
    )
    .bind(SLOTS)
    .execute(&mut *connection)
    .await
    .map_err(&failed)?;
    sqlx::query(
        "INSERT INTO evenkeel_meta (name, value) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(VERSION_NAME)
    .bind(NEWEST.to_string())
    .execute(connection)
    .await
    .map_err(&failed)?;
    Ok(())
}

/// The version stored in the file; 0 without an outbox. An error for a version that this release
/// does not know.
pub(super) async fn version(connection: &mut SqliteConnection) -> Result<usize, OutboxError> {
    let failed = OutboxError::during("read its version");
    let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'evenkeel_meta'")
        .fetch_optional(&mut *connection)
        .await
        .map_err(&failed)?
        .is_some();
    if !known {
        return Ok(0);
    }
    let stored: Option<String> =
        sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = ?")
            .bind(VERSION_NAME)
            .fetch_optional(connection)
            .await
            .map_err(&failed)?;
    version::check(stored.as_deref(), NEWEST)
}
