//! The store's tables and the statements on them.
//!
//! Owns all SQL of the inbox. Knows no connection handling: each function runs in the transaction it is given.

use super::SqliteSettings;
use crate::inbox::InboxKey;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

/// The version of the tables below. A store of a newer version is refused, an older one is brought up to date.
pub(super) const VERSION: u32 = 1;

/// `WITHOUT ROWID` keeps a row once, in the index that decides. A row without `completed_at` shows only inside the
/// transaction that claimed it, unless a handler committed by hand.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS evenkeel_meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS evenkeel_inbox (
        consumer_group TEXT NOT NULL,
        handler TEXT NOT NULL,
        source TEXT NOT NULL,
        id TEXT NOT NULL,
        replies BLOB,
        completed_at INTEGER,
        PRIMARY KEY (consumer_group, handler, source, id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS evenkeel_inbox_completed_at ON evenkeel_inbox (completed_at);
";

const CLAIM: &str = "
    INSERT INTO evenkeel_inbox (consumer_group, handler, source, id) VALUES (?, ?, ?, ?)
    ON CONFLICT DO NOTHING";

const REPLIES: &str = "
    SELECT replies FROM evenkeel_inbox
    WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ? AND completed_at IS NOT NULL";

/// In one call, as each costs a way to the connection's thread and back. The savepoint is gone when the transaction in which
/// it was set has ended.
const COMPLETE: &str = "
    RELEASE evenkeel_claim;
    UPDATE evenkeel_inbox SET replies = ?, completed_at = ?
    WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ? AND completed_at IS NULL
    RETURNING 1";

const PURGE: &str = "
    DELETE FROM evenkeel_inbox WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM evenkeel_inbox WHERE completed_at < ? LIMIT ?)";

/// Why a store cannot be used.
pub(super) enum Problem {
    /// It is not this group's or not of this version: whose it is and what to do.
    Foreign(String),
    /// SQLite failed.
    Sqlite(sqlx::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Checks whose store it is and of what version, before anything is changed, then creates what is missing.
pub(super) async fn prepare(
    connection: &mut SqliteConnection,
    settings: &SqliteSettings,
) -> Result<(), Problem> {
    let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'evenkeel_meta'")
        .fetch_optional(&mut *connection)
        .await?
        .is_some();
    if known {
        check_version(meta(connection, "version").await?)?;
        check_group(meta(connection, "group").await?, &settings.group)?;
    }
    sqlx::raw_sql(TABLES).execute(&mut *connection).await?;
    set_meta(connection, "version", &VERSION.to_string()).await?;
    set_meta(connection, "group", &settings.group).await?;
    sqlx::raw_sql(AssertSqlSafe(settings.schema.as_str()))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn check_version(stored: Option<String>) -> Result<(), Problem> {
    let Some(stored) = stored else {
        return Ok(());
    };
    match stored.parse::<u32>() {
        Ok(version) if version <= VERSION => Ok(()),
        Ok(version) => Err(Problem::Foreign(format!(
            "has version {version}, written by a newer release; this one knows versions up to {VERSION}: run the newer \
             release, or give this one a store of its own"
        ))),
        Err(_) => Err(Problem::Foreign(format!(
            "says its version is {stored:?}, which no release of evenkeel writes: give the service a store of its own"
        ))),
    }
}

fn check_group(stored: Option<String>, group: &str) -> Result<(), Problem> {
    match stored {
        Some(owner) if owner != group => Err(Problem::Foreign(format!(
            "belongs to the group {owner:?}, but this service's group is {group:?}: give each group a store of its own, \
             or run this service under the group {owner:?}"
        ))),
        _ => Ok(()),
    }
}

async fn meta(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await
}

async fn set_meta(
    connection: &mut SqliteConnection,
    name: &str,
    value: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO evenkeel_meta (name, value) VALUES (?, ?)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    )
    .bind(name)
    .bind(value)
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts the delivery and lets the unique key decide: none when it is this transaction's, or else the replies of its
/// completion.
///
/// A row that was never completed counts as this transaction's, too: only a handler that commits by hand leaves one, and to
/// call it a duplicate would lose the event.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let inserted = sqlx::query(CLAIM)
        .bind(&key.group)
        .bind(&key.handler)
        .bind(&key.source)
        .bind(&key.id)
        .execute(&mut *connection)
        .await?;
    if inserted.rows_affected() == 1 {
        return Ok(None);
    }
    let row = sqlx::query(REPLIES)
        .bind(&key.group)
        .bind(&key.handler)
        .bind(&key.source)
        .bind(&key.id)
        .fetch_optional(connection)
        .await?;
    row.map(|row| row.try_get("replies")).transpose()
}

/// Marks the claimed delivery as completed. False when its row is gone: the handler rolled back by hand. Fails when the
/// transaction is not the one that the claim was made in.
pub(super) async fn complete(
    connection: &mut SqliteConnection,
    key: &InboxKey,
    replies: &[u8],
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(COMPLETE)
        .bind(replies)
        .bind(now_ms)
        .bind(&key.group)
        .bind(&key.handler)
        .bind(&key.source)
        .bind(&key.id)
        .fetch_optional(connection)
        .await?;
    Ok(updated.is_some())
}

/// Deletes at most `batch` rows completed before `before_ms`; returns how many.
pub(super) async fn purge(
    connection: &mut SqliteConnection,
    before_ms: i64,
    batch: u32,
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query(PURGE)
        .bind(before_ms)
        .bind(batch)
        .execute(connection)
        .await?;
    Ok(deleted.rows_affected())
}
