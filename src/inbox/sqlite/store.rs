//! The store's tables and the statements on them.
//!
//! Owns all SQL of the inbox. Knows no connection handling: each function runs in the transaction it is given.

use super::{SqliteSettings, error};
use crate::event::ContentDigest;
use crate::inbox::digest::of_text;
use crate::inbox::group::CompletedRow;
use crate::inbox::horizon::PURGED_BEFORE_MS;
use crate::inbox::{Completion, InboxError, InboxKey};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

/// The version of the tables below. A store of a newer version is refused, an older one is brought up to date.
pub(super) const VERSION: u32 = 3;

/// `WITHOUT ROWID` keeps a row once, in the index that decides. A row says that its delivery is completed: it is inserted when
/// the delivery is claimed, and shows to others once the transaction of the claim is committed.
///
/// While a claim's transaction is open it holds a row in `evenkeel_open` whose foreign key is never met. SQLite looks at it
/// when the transaction is to be committed, so that a handler's own `COMMIT` is refused: it would complete events whose
/// handlers have not run.
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
    CREATE TABLE IF NOT EXISTS evenkeel_never (
        id INTEGER PRIMARY KEY
    );
    CREATE TABLE IF NOT EXISTS evenkeel_open (
        leave_commit_to_evenkeel INTEGER NOT NULL
            REFERENCES evenkeel_never (id) DEFERRABLE INITIALLY DEFERRED
    );
";

/// Longer sources and ids stand in a row as their digest. Rows are kept for weeks, and it is the producer who says how long an id is.
const TEXT_MAX: usize = 512;

/// Version 1 left a row without a time where a handler committed by hand: its delivery was not completed.
const FROM_1: &str = "DELETE FROM evenkeel_inbox WHERE completed_at IS NULL";

/// Version 2 did not keep what an event says.
const FROM_2: &str = "ALTER TABLE evenkeel_inbox ADD COLUMN content BLOB";

const HAS_CONTENT: &str = "
    SELECT EXISTS (SELECT 1 FROM pragma_table_info('evenkeel_inbox') WHERE name = 'content')";

/// What is known of the claims, by their place; then they are claimed. Nobody else writes in between, as this transaction has
/// the lock. All in one call, as each costs a way to the connection's thread and back.
const CLAIM: &str = "
    WITH claims (place, consumer_group, handler, source, id, content) AS (VALUES /*claims*/)
    SELECT claims.place, evenkeel_inbox.replies, evenkeel_inbox.content FROM claims
        JOIN evenkeel_inbox USING (consumer_group, handler, source, id);
    INSERT INTO evenkeel_inbox (consumer_group, handler, source, id, content, completed_at)
        WITH claims (place, consumer_group, handler, source, id, content) AS (VALUES /*claims*/)
        SELECT consumer_group, handler, source, id, content, ? FROM claims WHERE id IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO evenkeel_open VALUES (1);
    SAVEPOINT evenkeel_claim";

/// The savepoint is gone when the transaction in which it was set has ended.
const MARK: &str = "RELEASE evenkeel_claim; SAVEPOINT evenkeel_claim";

const UNDO: &str = "
    ROLLBACK TO evenkeel_claim;
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

const FORGET: &str = "
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

const KEEP: &str = "
    UPDATE evenkeel_inbox SET replies = ?
    WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

const CLOSE: &str = "RELEASE evenkeel_claim; DELETE FROM evenkeel_open";

const PURGE: &str = "
    DELETE FROM evenkeel_inbox WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM evenkeel_inbox WHERE completed_at < ? LIMIT ?)
    RETURNING completed_at";

/// Kept with what is deleted, for whoever gets an event that may have been among it.
const PURGED: &str = "
    INSERT INTO evenkeel_meta (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))";

const KNOWN: &str = "
    SELECT replies, content FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Whether a transaction with claims is open: its row is gone with it.
const IS_OPEN: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_open)";

/// How many deliveries are looked up at a time: SQLite takes 32,766 parameters.
pub(super) const LOOK_MAX: usize = 1024;

const COMPLETED: &str = "
    WITH asked (place, consumer_group, handler, source, id) AS (VALUES /*asked*/)
    SELECT asked.place, evenkeel_inbox.completed_at, evenkeel_inbox.content FROM asked
        JOIN evenkeel_inbox USING (consumer_group, handler, source, id)";

const HAS: &str = "
    SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1 AND handler = ?2)";

const HAS_ANY: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1)";

/// Why a store cannot be used.
pub(super) enum Problem {
    /// It is not this group's or not of this version: whose it is and what to do.
    Foreign(String),
    /// SQLite failed.
    Sqlite(sqlx::Error),
}

impl Problem {
    /// As an error of the store at `path`, found when `doing` that.
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

/// Checks that somebody may look at a store: whose it is, and that its tables are of this version.
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
            "is older than version {VERSION}: start its service once, which brings it up to date"
        )),
    }
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

/// Claims deliveries, all different. The row of each that was completed before, and none of the others.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
    now_ms: i64,
) -> Result<Vec<Option<CompletedRow>>, sqlx::Error> {
    // Few lengths, so that the connection knows the statement already. A claim of nulls is like no row.
    let length = keys.len().next_power_of_two();
    let sql = CLAIM.replace("/*claims*/", &vec!["(?, ?, ?, ?, ?, ?)"; length].join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for _ in 0..2 {
        for place in 0..length {
            let key = keys.get(place);
            let content = key.and_then(|key| key.content);
            query = bind_claim(query, place, key);
            query = query.bind(content.map(|content| content.as_bytes().to_vec()));
        }
    }
    let rows = query.bind(now_ms).fetch_all(connection).await?;
    let mut known = vec![None; keys.len()];
    for row in rows {
        let place: i64 = row.try_get("place")?;
        if let Some(known) = usize::try_from(place).ok().and_then(|at| known.get_mut(at)) {
            *known = Some(read(&row)?);
        }
    }
    Ok(known)
}

/// The row of a delivery, if it was completed.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<Option<CompletedRow>, sqlx::Error> {
    let known = bind(sqlx::query(KNOWN), key);
    let row = known.fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

fn read(row: &SqliteRow) -> Result<CompletedRow, sqlx::Error> {
    let replies: Option<Vec<u8>> = row.try_get("replies")?;
    Ok(CompletedRow {
        replies: replies.unwrap_or_default(),
        content: row.try_get("content")?,
    })
}

/// Whether the transaction is still the one that the claims were made in.
pub(super) async fn is_open(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_OPEN).fetch_one(connection).await
}

/// How each of at most [`LOOK_MAX`] deliveries was completed.
pub(super) async fn completed(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<Vec<Option<Completion>>, sqlx::Error> {
    let length = keys.len().next_power_of_two();
    let sql = COMPLETED.replace("/*asked*/", &vec!["(?, ?, ?, ?, ?)"; length].join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for place in 0..length {
        query = bind_claim(query, place, keys.get(place));
    }
    let mut told = vec![None; keys.len()];
    for row in query.fetch_all(connection).await? {
        let place: i64 = row.try_get("place")?;
        if let Some(told) = usize::try_from(place).ok().and_then(|at| told.get_mut(at)) {
            let (at_ms, content): (Option<i64>, Option<Vec<u8>>) =
                (row.try_get("completed_at")?, row.try_get("content")?);
            *told = at_ms.map(|at_ms| Completion {
                at_ms,
                content: content.as_deref().and_then(ContentDigest::from_bytes),
            });
        }
    }
    Ok(told)
}

/// Whether there is any delivery of the group, and of the handler where one is named.
pub(super) async fn has(
    connection: &mut SqliteConnection,
    group: &str,
    handler: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let query = match handler {
        Some(handler) => sqlx::query_scalar(HAS).bind(group).bind(handler),
        None => sqlx::query_scalar(HAS_ANY).bind(group),
    };
    query.fetch_one(connection).await
}

/// Keeps what was written since the last mark, and marks this place.
pub(super) async fn mark(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(MARK).execute(connection).await?;
    Ok(())
}

/// Keeps what a claimed delivery published.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    key: &InboxKey,
    replies: &[u8],
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(KEEP).bind(replies);
    bind(query, key).execute(connection).await?;
    Ok(())
}

/// Undoes what was written since the last mark, and the claim.
pub(super) async fn undo(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    bind(sqlx::query(UNDO), key).execute(connection).await?;
    Ok(())
}

/// Takes claims back.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    for key in keys {
        let forget = bind(sqlx::query(FORGET), key);
        forget.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Keeps what was written since the last mark; the transaction may be committed then.
pub(super) async fn close(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(CLOSE).execute(connection).await?;
    Ok(())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// A row of claims, or one of nulls.
fn bind_claim<'q>(query: Query<'q>, place: usize, key: Option<&'q InboxKey>) -> Query<'q> {
    let query = query
        .bind(place as i64)
        .bind(key.map(|key| &key.group))
        .bind(key.map(|key| &key.handler));
    match key {
        Some(key) => bind_text(bind_text(query, &key.source), &key.id),
        None => query.bind(None::<&str>).bind(None::<&str>),
    }
}

fn bind<'q>(query: Query<'q>, key: &'q InboxKey) -> Query<'q> {
    let query = query.bind(&key.group).bind(&key.handler);
    bind_text(bind_text(query, &key.source), &key.id)
}

/// A text of the producer's, or the digest of a long one as a blob, which equals no text.
fn bind_text<'q>(query: Query<'q>, text: &'q str) -> Query<'q> {
    match text.len() {
        0..=TEXT_MAX => query.bind(text),
        _ => query.bind(of_text(text).to_vec()),
    }
}

/// Deletes at most `batch` rows completed before `before_ms`, and notes up to when; returns how many.
pub(super) async fn purge(
    connection: &mut SqliteConnection,
    before_ms: i64,
    batch: u32,
) -> Result<u64, sqlx::Error> {
    let completed_ms: Vec<i64> = sqlx::query_scalar(PURGE)
        .bind(before_ms)
        .bind(batch)
        .fetch_all(&mut *connection)
        .await?;
    if let Some(latest_ms) = completed_ms.iter().max() {
        let purged = sqlx::query(PURGED)
            .bind(PURGED_BEFORE_MS)
            .bind((latest_ms + 1).to_string());
        purged.execute(connection).await?;
    }
    Ok(completed_ms.len() as u64)
}

/// Before when deliveries were completed that may have been deleted, as it stands in the store.
pub(super) async fn purged_before(
    connection: &mut SqliteConnection,
) -> Result<Option<String>, sqlx::Error> {
    meta(connection, PURGED_BEFORE_MS).await
}
