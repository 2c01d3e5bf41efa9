//! The statements on the store's tables.
//!
//! Owns all SQL of deliveries. Knows no connection handling: each function runs in the caller's
//! transaction.
//!
//! A handler may have ended its transaction. The steps between two turns and before the commit
//! therefore touch the savepoint or the row in `evenkeel_open`, which disappear with the
//! transaction, and fail if they are gone.
//!
//! Claims of several keys use one statement with a list of rows, padded with nulls to a power of
//! two: few different statements, which the connection keeps prepared.

use super::tables::meta;
use crate::event::ContentDigest;
use crate::inbox::group_commit::CompletedRow;
use crate::inbox::shared::purge_watermark::PURGED_BEFORE_MS;
use crate::inbox::{Completion, InboxKey};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

/// Longer sources and ids are stored as their digest. Rows are kept for weeks, and the producer
/// determines the length of an id.
const TEXT_MAX: usize = 512;

/// Looks up the claims by their index, then claims them. No other writer interferes, because this
/// transaction has the lock. One call, since each costs a round trip to the connection's thread.
const CLAIM: &str = "
    WITH claims (position, consumer_group, handler, source, id, content) AS (VALUES /*claims*/)
    SELECT claims.position, evenkeel_inbox.replies, evenkeel_inbox.content FROM claims
        JOIN evenkeel_inbox USING (consumer_group, handler, source, id);
    INSERT INTO evenkeel_inbox (consumer_group, handler, source, id, content, completed_at)
        WITH claims (position, consumer_group, handler, source, id, content) AS (VALUES /*claims*/)
        SELECT consumer_group, handler, source, id, content, ? FROM claims WHERE id IS NOT NULL
        ON CONFLICT DO NOTHING;
    INSERT INTO evenkeel_open VALUES (1);
    SAVEPOINT evenkeel_claim";

/// The savepoint is gone if the transaction in which it was set has ended.
const RENEW_SAVEPOINT: &str = "RELEASE evenkeel_claim; SAVEPOINT evenkeel_claim";

/// The claim was written before the savepoint, so the rollback does not undo it, and a statement
/// deletes it.
const UNDO_CLAIM: &str = "
    ROLLBACK TO evenkeel_claim;
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Releases a claim. Its row must not become visible as a completion.
const RELEASE_CLAIM: &str = "
    DELETE FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Sets the replies of a claimed delivery, or removes those of a completed one.
const SET_REPLIES: &str = "
    UPDATE evenkeel_inbox SET replies = ?
    WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Makes the commit possible: the row that blocks it goes. Fails if the savepoint is gone, and so
/// detects a transaction that the handler ended and began anew.
const REMOVE_GUARD: &str = "RELEASE evenkeel_claim; DELETE FROM evenkeel_open";

/// `RETURNING` gives the times of the deleted rows, from which the watermark follows. The subquery
/// bounds the rows of one transaction, because `DELETE … LIMIT` needs a build option of SQLite.
const PURGE: &str = "
    DELETE FROM evenkeel_inbox WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM evenkeel_inbox WHERE completed_at < ? LIMIT ?)
    RETURNING completed_at";

/// Stored with the deletion, so that late events can be reported as possible duplicates.
const STORE_PURGE_WATERMARK: &str = "
    INSERT INTO evenkeel_meta (name, value) VALUES (?1, ?2)
    ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))";

/// The row of one delivery, by its primary key.
const FIND_COMPLETED: &str = "
    SELECT replies, content FROM evenkeel_inbox WHERE consumer_group = ? AND handler = ? AND source = ? AND id = ?";

/// Whether a transaction with claims is open: its row disappears with it.
const IS_OPEN: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_open)";

/// How many deliveries one query looks up: SQLite accepts 32,766 parameters.
pub(super) const KEYS_PER_QUERY_MAX: usize = 1024;

/// Reads by the primary key: the join looks each row of the list up. Rows of open claims are not
/// visible to other connections.
const READ_COMPLETIONS: &str = "
    WITH wanted (position, consumer_group, handler, source, id) AS (VALUES /*wanted*/)
    SELECT wanted.position, evenkeel_inbox.completed_at, evenkeel_inbox.content FROM wanted
        JOIN evenkeel_inbox USING (consumer_group, handler, source, id)";

/// Uses the primary key, of which group and handler are the first columns.
const HAS_HANDLER: &str = "
    SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1 AND handler = ?2)";

/// Uses the primary key, of which the group is the first column.
const HAS_GROUP: &str = "SELECT EXISTS (SELECT 1 FROM evenkeel_inbox WHERE consumer_group = ?1)";

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
        for position in 0..length {
            let key = keys.get(position);
            let content = key.and_then(|key| key.content);
            query = bind_claim(query, position, key);
            query = query.bind(content.map(|content| content.as_bytes().to_vec()));
        }
    }
    let rows = query.bind(now_ms).fetch_all(connection).await?;
    let mut known = vec![None; keys.len()];
    for row in rows {
        let position: i64 = row.try_get("position")?;
        if let Some(known) = usize::try_from(position)
            .ok()
            .and_then(|at| known.get_mut(at))
        {
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
    let known = bind(sqlx::query(FIND_COMPLETED), key);
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
    let sql = READ_COMPLETIONS.replace("/*wanted*/", &vec!["(?, ?, ?, ?, ?)"; length].join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for position in 0..length {
        query = bind_claim(query, position, keys.get(position));
    }
    let mut completions = vec![None; keys.len()];
    for row in query.fetch_all(connection).await? {
        let position: i64 = row.try_get("position")?;
        if let Some(completion) = usize::try_from(position)
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
pub(super) async fn has_deliveries(
    connection: &mut SqliteConnection,
    group: &str,
    handler: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let query = match handler {
        Some(handler) => sqlx::query_scalar(HAS_HANDLER).bind(group).bind(handler),
        None => sqlx::query_scalar(HAS_GROUP).bind(group),
    };
    query.fetch_one(connection).await
}

/// Releases the savepoint and sets a new one.
pub(super) async fn savepoint(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(RENEW_SAVEPOINT).execute(connection).await?;
    Ok(())
}

/// Stores the published events of a claimed delivery.
pub(super) async fn store_replies(
    connection: &mut SqliteConnection,
    key: &InboxKey,
    replies: &[u8],
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(SET_REPLIES).bind(replies);
    bind(query, key).execute(connection).await?;
    Ok(())
}

/// Deletes the published events of a completed delivery.
pub(super) async fn forget_replies(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(SET_REPLIES).bind(None::<&[u8]>);
    bind(query, key).execute(connection).await?;
    Ok(())
}

/// Undoes the writes since the last savepoint, and the claim.
pub(super) async fn rollback_to_savepoint(
    connection: &mut SqliteConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    bind(sqlx::query(UNDO_CLAIM), key)
        .execute(connection)
        .await?;
    Ok(())
}

/// Releases claims.
pub(super) async fn release_claims(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    for key in keys {
        let forget = bind(sqlx::query(RELEASE_CLAIM), key);
        forget.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Releases the savepoint; the transaction may then be committed.
pub(super) async fn release_savepoint(
    connection: &mut SqliteConnection,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(REMOVE_GUARD).execute(connection).await?;
    Ok(())
}

/// A statement whose values are being bound.
type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a row of claims, or a row of nulls.
fn bind_claim<'q>(query: Query<'q>, position: usize, key: Option<&'q InboxKey>) -> Query<'q> {
    let query = query
        .bind(position as i64)
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
        let purged = sqlx::query(STORE_PURGE_WATERMARK)
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
