//! The store's tables: creates and upgrades them, and checks their owner and version.
//!
//! Knows no statement of a delivery; `statements.rs` has those.

use super::{SqliteSettings, error};
use crate::inbox::InboxError;
use sqlx::{AssertSqlSafe, SqliteConnection};

/// The version of the tables below. A store with a newer version is refused, an older one is
/// upgraded.
pub(super) const VERSION: u32 = 3;

/// `WITHOUT ROWID` stores a row once, in the index of the key. A row marks its delivery as
/// completed: it is inserted when the delivery is claimed, and becomes visible to others once the
/// transaction of the claim is committed.
///
/// A file of an earlier release may also have the tables `evenkeel_never` and `evenkeel_open`. They
/// are empty and no longer used, but another process of that release may still need them.
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
        content BLOB,
        PRIMARY KEY (consumer_group, handler, source, id)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS evenkeel_inbox_completed_at ON evenkeel_inbox (completed_at);
";

/// Version 1 left a row without a time when a handler committed by hand: its delivery was not
/// completed.
const FROM_1: &str = "DELETE FROM evenkeel_inbox WHERE completed_at IS NULL";

/// Version 2 did not store the digest of the event's content.
const FROM_2: &str = "ALTER TABLE evenkeel_inbox ADD COLUMN content BLOB";

const HAS_CONTENT: &str = "
    SELECT EXISTS (SELECT 1 FROM pragma_table_info('evenkeel_inbox') WHERE name = 'content')";

/// Why a store cannot be used.
pub(super) enum Problem {
    /// It belongs to another group or has another version; with the remedy.
    Foreign(String),
    /// SQLite failed.
    Sqlite(sqlx::Error),
}

impl Problem {
    /// The error of the store at `path`, found during `doing`.
    pub(super) fn on(self, path: &str, doing: &'static str) -> InboxError {
        match self {
            Self::Foreign(reason) => InboxError::Foreign {
                path: path.to_owned(),
                reason,
            },
            Self::Sqlite(error) => error::failed(path, doing, error),
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Checks the owner and the version of the store before anything is changed, then creates the
/// missing tables.
pub(super) async fn migrate(
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
    sqlx::raw_sql(FROM_1).execute(&mut *connection).await?;
    let has_content: bool = sqlx::query_scalar(HAS_CONTENT)
        .fetch_one(&mut *connection)
        .await?;
    if !has_content {
        sqlx::raw_sql(FROM_2).execute(&mut *connection).await?;
    }
    set_meta(connection, "version", &VERSION.to_string()).await?;
    set_meta(connection, "group", &settings.group).await?;
    sqlx::raw_sql(AssertSqlSafe(settings.schema.as_str()))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

/// Checks that a store can be read: its owner, and the version of its tables.
pub(super) async fn check(connection: &mut SqliteConnection, group: &str) -> Result<(), Problem> {
    let foreign = |reason: String| Err(Problem::Foreign(reason));
    let known = sqlx::query("SELECT 1 FROM sqlite_schema WHERE name = 'evenkeel_meta'")
        .fetch_optional(&mut *connection)
        .await?
        .is_some();
    if !known {
        return foreign("has no tables of evenkeel: name a service's store".to_owned());
    }
    check_group(meta(connection, "group").await?, group)?;
    let version = meta(connection, "version").await?;
    check_version(version.clone())?;
    match version.as_deref().map(str::parse) {
        Some(Ok(VERSION)) => Ok(()),
        _ => foreign(format!(
            "is older than version {VERSION}: start its service once, which upgrades it"
        )),
    }
}

/// Refuses a newer version, and text that is no version. A missing one is that of a new store.
fn check_version(stored: Option<String>) -> Result<(), Problem> {
    let Some(stored) = stored else {
        return Ok(());
    };
    match stored.parse::<u32>() {
        Ok(version) if version <= VERSION => Ok(()),
        Ok(version) => Err(Problem::Foreign(format!(
            "has version {version}, written by a newer release; this one knows versions up to \
             {VERSION}: run the newer release, or give this one a store of its own"
        ))),
        Err(_) => Err(Problem::Foreign(format!(
            "has the version {stored:?}, which no release of evenkeel writes: give the service a \
             store of its own"
        ))),
    }
}

/// Refuses the store of another group. A missing group is that of a new store.
fn check_group(stored: Option<String>, group: &str) -> Result<(), Problem> {
    match stored {
        Some(owner) if owner != group => Err(Problem::Foreign(format!(
            "belongs to the group {owner:?}, but this service's group is {group:?}: give each \
             group a store of its own, or run this service under the group {owner:?}"
        ))),
        _ => Ok(()),
    }
}

/// The value of a row of `evenkeel_meta`, if it exists.
pub(super) async fn meta(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await
}

/// Sets a row of `evenkeel_meta`.
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
