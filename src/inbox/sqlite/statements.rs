//! The store's tables and the statements on them.
//!
//! Owns all SQL of the inbox. Knows no connection handling: each function runs in the caller's
//! transaction.
//!
//! A handler may have ended its transaction. The steps between two turns and before the commit
//! therefore touch the savepoint or the row in `evenkeel_open`, which disappear with the
//! transaction, and fail if they are gone.
//!
//! Claims of several keys use one statement with a list of rows, padded with nulls to a power of
//! two: few different statements, which the connection keeps prepared.

use super::{SqliteSettings, error};
use crate::event::ContentDigest;
use crate::inbox::group_commit::CompletedRow;
use crate::inbox::shared::purge_watermark::PURGED_BEFORE_MS;
use crate::inbox::{Completion, InboxError, InboxKey};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

/// The version of the tables below. A store with a newer version is refused, an older one is
/// upgraded.
pub(super) const VERSION: u32 = 3;

/// `WITHOUT ROWID` stores a row once, in the index of the key. A row marks its delivery as
/// completed: it is inserted when the delivery is claimed, and becomes visible to others once the
/// transaction of the claim is committed.
///
/// While a claim's transaction is open it holds a row in `evenkeel_open` whose foreign key is never
/// satisfied. SQLite checks it at the commit, so a handler's own `COMMIT` is refused: it would
/// complete events whose handlers have not run.
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

/// Longer sources and ids are stored as their digest. Rows are kept for weeks, and the producer
/// determines the length of an id.
const TEXT_MAX: usize = 512;

/// Version 1 left a row without a time when a handler committed by hand: its delivery was not
/// completed.
const FROM_1: &str = "DELETE FROM evenkeel_inbox WHERE completed_at IS NULL";

/// Version 2 did not store the digest of the event's content.
const FROM_2: &str = "ALTER TABLE evenkeel_inbox ADD COLUMN content BLOB";

const HAS_CONTENT: &str = "
    SELECT EXISTS (SELECT 1 FROM pragma_table_info('evenkeel_inbox') WHERE name = 'content')";

/// Looks up the claims by their index, then claims them. No other writer interferes, because this
/// transaction has the lock. One call, since each costs a round trip to the connection's thread.
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

/// The savepoint is gone if the transaction in which it was set has ended.
const MARK: &str = "RELEASE evenkeel_claim; SAVEPOINT evenkeel_claim";

/// The claim lies before the savepoint, so the rollback does not reach it; it is deleted by hand.
const UNDO: &str = "
    ROLLBACK TO evenkeel_claim;
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Releases a claim. Its row must not become visible as a completion.
const FORGET: &str = "
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Sets the replies of a claimed delivery, or removes those of a completed one.
const KEEP: &str = "
    UPDATE evenkeel_inbox SET replies = ?
    WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Makes the commit possible: the row that blocks it goes. Fails if the savepoint is gone, and so
/// detects a transaction that the handler ended and began anew.
const CLOSE: &str = "RELEASE evenkeel_claim; DELETE FROM evenkeel_open";

/// `RETURNING` gives the times of the deleted rows, from which the watermark follows. The subquery
/// bounds the rows of one transaction, because `DELETE … LIMIT` needs a build option of SQLite.
const PURGE: &str = "
    DELETE FROM evenkeel_inbox WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM evenkeel_inbox WHERE completed_at < ? LIMIT ?)
    RETURNING completed_at";

/// Stored with the deletion, so that late events can be reported as possible duplicates.
const PURGED: &str = "
    INSERT INTO evenkeel_meta (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))";

/// The row of one delivery, by its primary key.
const KNOWN: &str = "
    SELECT replies, content FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Whether a transaction with claims is open: its row disappears with it.
const IS_OPEN: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_open)";

/// How many deliveries one query looks up: SQLite accepts 32,766 parameters.
pub(super) const KEYS_PER_QUERY_MAX: usize = 1024;

/// Reads by the primary key: the join looks each row of the list up. Rows of open claims are not
/// visible to other connections.
const COMPLETED: &str = "
    WITH asked (place, consumer_group, handler, source, id) AS (VALUES /*asked*/)
    SELECT asked.place, evenkeel_inbox.completed_at, evenkeel_inbox.content FROM asked
        JOIN evenkeel_inbox USING (consumer_group, handler, source, id)";

/// Uses the primary key, of which group and handler are the first columns.
const HAS: &str = "
    SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1 AND handler = ?2)";

/// Uses the primary key, of which the group is the first column.
const HAS_ANY: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1)";

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
async fn meta(
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

/// Claims deliveries with distinct keys. Returns the row of each delivery that was completed
/// before, and none for the others.
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
    now_ms: i64,
) -> Result<Vec<Option<CompletedRow>>, sqlx::Error> {
    // Few different lengths, so that the connection has the statement prepared already. A claim of
    // nulls has no effect.
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
pub(super) async fn find(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<Option<CompletedRow>, sqlx::Error> {
    let known = bind(sqlx::query(KNOWN), key);
    let row = known.fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// The parts of a row that a claim needs.
fn read(row: &SqliteRow) -> Result<CompletedRow, sqlx::Error> {
    let replies: Option<Vec<u8>> = row.try_get("replies")?;
    Ok(CompletedRow {
        replies: replies.unwrap_or_default(),
        content: row.try_get("content")?,
    })
}

/// Whether the transaction is still the one in which the claims were made.
pub(super) async fn is_open(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(IS_OPEN).fetch_one(connection).await
}

/// How each of at most [`KEYS_PER_QUERY_MAX`] deliveries was completed.
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
    let mut completions = vec![None; keys.len()];
    for row in query.fetch_all(connection).await? {
        let place: i64 = row.try_get("place")?;
        if let Some(completion) = usize::try_from(place)
            .ok()
            .and_then(|at| completions.get_mut(at))
        {
            let (at_ms, content): (Option<i64>, Option<Vec<u8>>) =
                (row.try_get("completed_at")?, row.try_get("content")?);
            *completion = at_ms.map(|at_ms| Completion {
                at_ms,
                content: content.as_deref().and_then(ContentDigest::from_bytes),
            });
        }
    }
    Ok(completions)
}

/// Whether any delivery of the group exists, and of the handler if one is given.
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

/// Releases the savepoint and sets a new one.
pub(super) async fn savepoint(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(MARK).execute(connection).await?;
    Ok(())
}

/// Stores the published events of a claimed delivery.
pub(super) async fn store_replies(
    connection: &mut SqliteConnection,
    key: &InboxKey,
    replies: &[u8],
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(KEEP).bind(replies);
    bind(query, key).execute(connection).await?;
    Ok(())
}

/// Deletes the published events of a completed delivery.
pub(super) async fn forget_replies(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(KEEP).bind(None::<&[u8]>);
    bind(query, key).execute(connection).await?;
    Ok(())
}

/// Undoes the writes since the last savepoint, and the claim.
pub(super) async fn rollback_to_savepoint(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    bind(sqlx::query(UNDO), key).execute(connection).await?;
    Ok(())
}

/// Releases claims.
pub(super) async fn release_claims(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    for key in keys {
        let forget = bind(sqlx::query(FORGET), key);
        forget.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Releases the savepoint; the transaction may then be committed.
pub(super) async fn release_savepoint(
    connection: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(CLOSE).execute(connection).await?;
    Ok(())
}

/// A statement whose values are being bound.
type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a row of claims, or a row of nulls.
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

/// Binds the identity of a delivery, in the order of the primary key.
fn bind<'q>(query: Query<'q>, key: &'q InboxKey) -> Query<'q> {
    let query = query.bind(&key.group).bind(&key.handler);
    bind_text(bind_text(query, &key.source), &key.id)
}

/// Binds a producer's text, or the digest of a long text as a blob, which equals no text.
fn bind_text<'q>(query: Query<'q>, text: &'q str) -> Query<'q> {
    match text.len() {
        0..=TEXT_MAX => query.bind(text),
        _ => query.bind(digest_of(text).to_vec()),
    }
}

/// SHA-256 of a text. Rows of all releases are compared by it, so it may never have another value
/// for the same text.
pub(super) fn digest_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Deletes at most `batch` rows completed before `before_ms`, and records that time. Returns the
/// number of deleted rows.
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

/// The stored time before which completed deliveries may have been deleted.
pub(super) async fn purged_before(
    connection: &mut SqliteConnection,
) -> Result<Option<String>, sqlx::Error> {
    meta(connection, PURGED_BEFORE_MS).await
}
