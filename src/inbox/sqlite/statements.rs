//! The statements on the store's tables.
//!
//! Owns all SQL of deliveries. Knows no connection handling: each function runs in the caller's
//! transaction.
//!
//! A handler may have ended its transaction. The undoing of a turn then fails: its savepoint is
//! gone, and outside of a transaction the commit of a statement is refused (`commit_guard.rs`).
//!
//! Several keys are one statement with a list of rows, padded with nulls to a power of two: few
//! different statements, which the connection keeps prepared.

use super::tables::meta;
use crate::event::ContentDigest;
use crate::inbox::group_commit::CompletedRow;
use crate::inbox::shared::purge_watermark::PURGED_BEFORE_MS;
use crate::inbox::{Completion, InboxKey};
use futures_util::FutureExt;
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
        ON CONFLICT DO NOTHING";

/// Releases claims. Their rows must not become visible as completions. The list is a table, because
/// a bare list of rows would be compared with each row of the inbox.
pub(super) const RELEASE_CLAIMS: &str = "
    WITH keys (consumer_group, handler, source, id) AS (VALUES /*keys*/)
    DELETE FROM evenkeel_inbox WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM keys)";

/// Stores the replies of claimed deliveries. An upsert looks each row up by its key, whatever
/// SQLite knows about the size of the table.
const STORE_REPLIES: &str = "
    INSERT INTO evenkeel_inbox (consumer_group, handler, source, id, replies)
        WITH staged (consumer_group, handler, source, id, replies) AS (VALUES /*staged*/)
        SELECT consumer_group, handler, source, id, replies FROM staged WHERE id IS NOT NULL
        ON CONFLICT (consumer_group, handler, source, id) DO UPDATE SET replies = excluded.replies";

/// Removes the replies of completed deliveries.
pub(super) const FORGET_REPLIES: &str = "
    WITH keys (consumer_group, handler, source, id) AS (VALUES /*keys*/)
    UPDATE evenkeel_inbox SET replies = NULL WHERE (consumer_group, handler, source, id) IN (
        SELECT consumer_group, handler, source, id FROM keys)";

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

/// Sends the savepoint with this number to the connection's thread, and releases the one before it.
/// Does not wait: statements are executed in the order in which they were sent. The answer is lost,
/// so a failure shows only when the savepoint is used.
pub(super) fn send_savepoint(connection: &mut SqliteConnection, number: u32) {
    if number > 1 {
        send(connection, format!("RELEASE evenkeel_{}", number - 1));
    }
    send(connection, format!("SAVEPOINT evenkeel_{number}"));
}

/// Sends one statement. The first poll of its future sends it, because the queue of the thread is
/// never full. The thread executes it even if nobody reads the answer, but nothing that follows it
/// in the same text.
fn send(connection: &mut SqliteConnection, statement: String) {
    let executed = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection);
    // Most likely not ready. An error means that the thread is gone, as the next statement finds.
    let _ = executed.now_or_never();
}

/// Undoes the writes since the savepoint with this number, and the claim. The claim was written
/// before the savepoint, so the rollback does not undo it. Fails if the savepoint does not exist.
pub(super) async fn undo_turn(
    connection: &mut SqliteConnection,
    savepoint: u32,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    let undo = format!("ROLLBACK TO evenkeel_{savepoint}");
    let undo = sqlx::raw_sql(AssertSqlSafe(undo));
    undo.execute(&mut *connection).await?;
    release_claims(connection, std::slice::from_ref(key)).await
}

/// Stores the published events of claimed deliveries.
pub(super) async fn store_replies(
    connection: &mut SqliteConnection,
    replies: &[(InboxKey, Vec<u8>)],
) -> Result<(), sqlx::Error> {
    if replies.is_empty() {
        return Ok(());
    }
    let length = replies.len().next_power_of_two();
    let rows = vec!["(?, ?, ?, ?, ?)"; length].join(", ");
    let sql = STORE_REPLIES.replace("/*staged*/", &rows);
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for position in 0..length {
        let row = replies.get(position);
        query = bind_key(query, row.map(|(key, _)| key));
        query = query.bind(row.map(|(_, replies)| replies.as_slice()));
    }
    query.execute(connection).await?;
    Ok(())
}

/// Deletes the published events of completed deliveries.
pub(super) async fn forget_replies(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    execute_for(connection, FORGET_REPLIES, keys).await
}

/// Releases claims.
pub(super) async fn release_claims(
    connection: &mut SqliteConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    execute_for(connection, RELEASE_CLAIMS, keys).await
}

/// Executes a statement with a list of keys.
async fn execute_for(
    connection: &mut SqliteConnection,
    sql: &str,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    let length = keys.len().next_power_of_two();
    let sql = sql.replace("/*keys*/", &vec!["(?, ?, ?, ?)"; length].join(", "));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for position in 0..length {
        query = bind_key(query, keys.get(position));
    }
    query.execute(connection).await?;
    Ok(())
}

/// A statement whose values are being bound.
type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Binds a row of claims, or its position and a row of nulls.
fn bind_claim<'q>(query: Query<'q>, position: usize, key: Option<&'q InboxKey>) -> Query<'q> {
    bind_key(query.bind(position as i64), key)
}

/// Binds the identity of a delivery, or a row of nulls, which equals no key.
fn bind_key<'q>(query: Query<'q>, key: Option<&'q InboxKey>) -> Query<'q> {
    match key {
        Some(key) => bind(query, key),
        None => (0..4).fold(query, |query, _| query.bind(None::<&str>)),
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
