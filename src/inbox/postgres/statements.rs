//! The statements on the store's tables.
//!
//! Owns the SQL of deliveries, except for that of the audit (`completions.rs`). Knows no connection
//! handling: each function runs in the caller's transaction.
//!
//! Statements that run for every delivery are prepared and take arrays (`unnest`), so that one text
//! serves any number of deliveries. Those that contain a setting or several commands are plain
//! text, one round trip each, and contain no data of an event.

use crate::inbox::InboxKey;
use crate::inbox::group_commit::CompletedRow;
use crate::inbox::shared::digest::digest;
use crate::inbox::shared::purge_watermark::PURGED_BEFORE_MS;
use crate::postgres::meta;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::time::Duration;

/// Follows a `BEGIN`, and prevents a handler from committing the transaction, which would complete
/// events whose handlers have not run. PostgreSQL reads an open `WITH HOLD` cursor to its end at
/// the commit, and reading this one fails. Unlike a deferred constraint it is not affected by `SET
/// CONSTRAINTS ALL IMMEDIATE`.
pub(super) const GUARD: &str = "
    DECLARE evenkeel_open NO SCROLL CURSOR WITH HOLD FOR
    SELECT ('leave COMMIT and ROLLBACK to evenkeel' || left(random()::text, 0))::integer";

/// The advisory locks of consumer groups: this number, and a number for the group. The bytes spell
/// the name.
const GROUP_LOCK: i32 = 0x6576_6b6c;

/// Sets the lock timeout, takes the group's lock, claims, and sets the lock timeout of what follows
/// several claims, in one statement to save round trips. The second timeout is set when all rows
/// are inserted, because their count is its condition. All processes claim several deliveries in
/// the same order; otherwise two could wait for each other.
const CLAIM: &str = "
    WITH timeout_set AS MATERIALIZED (
        SELECT set_config('lock_timeout', $6, true)
    ), group_locked AS MATERIALIZED (
        SELECT CASE WHEN $7 THEN pg_advisory_xact_lock($8, number) ELSE pg_advisory_xact_lock_shared($8, number) END
        FROM unnest($9::integer[]) AS number WHERE (SELECT count(*) FROM timeout_set) > 0
    ), claimed AS (
        INSERT INTO evenkeel_inbox (digest, consumer_group, handler, source, id, content)
        SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $10::bytea[])
            AS claims (digest, consumer_group, handler, source, id, content)
        WHERE (SELECT count(*) FROM group_locked) > 0
        ORDER BY digest
        ON CONFLICT DO NOTHING
        RETURNING digest
    )
    SELECT array_agg(digest) AS digests,
           CASE WHEN count(*) > 1 THEN set_config('lock_timeout', $11, true) END
    FROM claimed";

/// Takes the group's lock if it is free, for transactions that see nothing committed after their
/// first statement.
const TRY_LOCK: &str = "
    SELECT bool_and(CASE WHEN $1 THEN pg_try_advisory_xact_lock($2, number)
                         ELSE pg_try_advisory_xact_lock_shared($2, number) END)
    FROM unnest($3::integer[]) AS number";

/// The rows of completed deliveries; waits for no open claim.
const FIND_COMPLETED: &str =
    "SELECT digest, replies, content FROM evenkeel_inbox WHERE digest = ANY($1)";

/// Stores the replies of claimed deliveries. Stores nothing if the transaction of the claims has
/// ended: the rows could be completions of another owner.
const STORE_REPLIES: &str = "
    UPDATE evenkeel_inbox SET replies = staged.replies
    FROM unnest($1::bytea[], $2::bytea[]) AS staged (digest, replies)
    WHERE evenkeel_inbox.digest = staged.digest
        AND EXISTS (SELECT 1 FROM pg_cursors WHERE name = 'evenkeel_open')";

/// If a crash of the server undoes the change, the events are published once more; that is not
/// worth a wait for the disk.
const FORGET_REPLIES: &str = "
    WITH unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    UPDATE evenkeel_inbox SET replies = NULL
    WHERE (SELECT count(*) FROM unsynced) > 0 AND digest IN (
        SELECT digest FROM evenkeel_inbox WHERE digest = ANY($1) AND replies IS NOT NULL FOR UPDATE SKIP LOCKED)";

/// Releases claims. Their rows must not become visible as completions. Deletes nothing if the
/// transaction of the claims has ended: the rows could be completions of another owner.
const RELEASE_CLAIMS: &str = "
    DELETE FROM evenkeel_inbox WHERE digest = ANY($1)
        AND EXISTS (SELECT 1 FROM pg_cursors WHERE name = 'evenkeel_open')";

/// Removes the guard, after which the commit is possible. Fails if the cursor is gone, and so
/// detects a transaction that the handler ended and began anew.
const REMOVE_GUARD: &str = "CLOSE evenkeel_open";

/// Records in the same transaction up to which time it deleted, so that late events can be reported
/// as possible duplicates.
const PURGE: &str = "
    WITH gone AS (
        DELETE FROM evenkeel_inbox WHERE digest IN (
            SELECT digest FROM evenkeel_inbox WHERE completed_at < now() - make_interval(secs => $1)
            LIMIT $2 FOR UPDATE SKIP LOCKED)
        RETURNING completed_at
    ), noted AS (
        INSERT INTO evenkeel_meta (name, value)
        SELECT $3, floor(extract(epoch FROM max(completed_at)) * 1000)::bigint + 1 FROM gone HAVING count(*) > 0
        ON CONFLICT (name) DO UPDATE
            SET value = greatest(evenkeel_meta.value::bigint, excluded.value::bigint)
        RETURNING value
    )
    SELECT (SELECT count(*) FROM gone) AS gone, (SELECT value FROM noted) AS purged_before";

/// The readable columns are truncated to this many characters.
const TEXT_MAX: usize = 256;

/// The stored time before which completed deliveries may have been deleted.
pub(super) async fn purged_before(
    connection: &mut PgConnection,
) -> Result<Option<String>, sqlx::Error> {
    meta(connection, PURGED_BEFORE_MS).await
}

/// How a transaction uses locks.
#[derive(Clone, Copy)]
pub(super) struct Locking<'a> {
    /// Whether it is the only transaction of its consumer groups.
    pub(super) is_exclusive: bool,
    /// How long to wait for a lock, in PostgreSQL's format.
    pub(super) timeout: &'a str,
    /// The same for the statements after several claims.
    pub(super) timeout_after: &'a str,
}

/// Takes the lock of these keys' groups, if it is free.
pub(super) async fn try_lock(
    connection: &mut PgConnection,
    keys: &[InboxKey],
    is_exclusive: bool,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(TRY_LOCK)
        .bind(is_exclusive)
        .bind(GROUP_LOCK)
        .bind(lock_numbers(keys))
        .fetch_one(connection)
        .await
}

/// The numbers of the keys' groups, in the order in which every process locks them. Usually there
/// is one.
fn lock_numbers(keys: &[InboxKey]) -> Vec<i32> {
    let mut groups: Vec<&str> = keys.iter().map(|key| key.group.as_str()).collect();
    groups.dedup();
    let mut numbers: Vec<i32> = groups.into_iter().map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// A number for a name, the same in every process and release: the first four bytes of its SHA-256.
/// Two names with the same number only wait for each other.
fn number(name: &str) -> i32 {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    i32::from_be_bytes([a, b, c, d])
}

/// Claims deliveries with distinct keys. Returns the row of each delivery that was completed
/// before, and none for the others.
pub(super) async fn claim(
    connection: &mut PgConnection,
    keys: &[InboxKey],
    locking: Locking<'_>,
) -> Result<Vec<Option<CompletedRow>>, sqlx::Error> {
    let digests: Vec<[u8; 32]> = keys.iter().map(digest).collect();
    let column = |text: fn(&InboxKey) -> &str| -> Vec<String> {
        keys.iter().map(|key| storable_text(text(key))).collect()
    };
    let contents = keys
        .iter()
        .map(|key| key.content.map(|content| content.as_bytes().to_vec()));
    let contents: Vec<Option<Vec<u8>>> = contents.collect();
    let claimed = sqlx::query_scalar(CLAIM)
        .bind(&digests)
        .bind(column(|key| &key.group))
        .bind(column(|key| &key.handler))
        .bind(column(|key| &key.source))
        .bind(column(|key| &key.id))
        .bind(locking.timeout)
        .bind(locking.is_exclusive)
        .bind(GROUP_LOCK)
        .bind(lock_numbers(keys))
        .bind(contents)
        .bind(locking.timeout_after)
        .fetch_one(&mut *connection)
        .await;
    let claimed: Option<Vec<Vec<u8>>> = claimed?;
    let claimed = claimed.unwrap_or_default();
    let unread = CompletedRow {
        replies: Vec::new(),
        content: None,
    };
    let mut known = vec![Some(unread); keys.len()];
    let mut at: Vec<usize> = (0..keys.len()).collect();
    at.sort_unstable_by_key(|at| digests[*at]);
    let place = |digest: &[u8]| {
        let found = at.binary_search_by(|at| digests[*at].as_slice().cmp(digest));
        found.ok().map(|found| at[found])
    };
    for digest in &claimed {
        if let Some(place) = place(digest) {
            known[place] = None;
        }
    }
    if claimed.len() == keys.len() {
        return Ok(known);
    }
    let completed = sqlx::query(FIND_COMPLETED).bind(&digests);
    for row in completed.fetch_all(connection).await? {
        if let Some(place) = place(row.try_get("digest")?)
            && let Some(known) = &mut known[place]
        {
            *known = read(&row)?;
        }
    }
    Ok(known)
}

/// The row of a delivery, if it was completed.
pub(super) async fn find(
    connection: &mut PgConnection,
    key: &InboxKey,
) -> Result<Option<CompletedRow>, sqlx::Error> {
    let known = sqlx::query(FIND_COMPLETED).bind([digest(key)]);
    let row = known.fetch_optional(connection).await?;
    row.as_ref().map(read).transpose()
}

/// The parts of a row that a claim needs.
fn read(row: &PgRow) -> Result<CompletedRow, sqlx::Error> {
    let replies: Option<Vec<u8>> = row.try_get("replies")?;
    Ok(CompletedRow {
        replies: replies.unwrap_or_default(),
        content: row.try_get("content")?,
    })
}

/// Whether transactions by default see data that others committed since they began.
pub(super) async fn sees_commits(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let level = sqlx::query_scalar("SHOW default_transaction_isolation");
    let level: String = level.fetch_one(connection).await?;
    Ok(level.starts_with("read "))
}

/// Without the characters that PostgreSQL's text cannot hold, and truncated.
pub(super) fn storable_text(text: &str) -> String {
    let characters = text.chars().take(TEXT_MAX);
    characters
        .map(|character| match character {
            '\0' => char::REPLACEMENT_CHARACTER,
            other => other,
        })
        .collect()
}

/// Sets the first savepoint of a transaction.
pub(super) async fn first_savepoint(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    execute_constant(connection, "SAVEPOINT evenkeel_claim").await
}

/// Releases the savepoint and sets a new one. `reset`, if given, discards a handler's settings of
/// its session or transaction, except for the lock timeout that applies from here on.
pub(super) async fn savepoint(
    connection: &mut PgConnection,
    reset: Option<&str>,
    lock_timeout: &str,
) -> Result<(), sqlx::Error> {
    match reset {
        Some(reset) => {
            let sql = format!(
                "RELEASE SAVEPOINT evenkeel_claim; {reset}; SET LOCAL lock_timeout = '{lock_timeout}'; \
                 SAVEPOINT evenkeel_claim"
            );
            execute_composed(connection, sql).await
        }
        None => {
            let sql = "RELEASE SAVEPOINT evenkeel_claim; SAVEPOINT evenkeel_claim";
            execute_constant(connection, sql).await
        }
    }
}

/// Discards a handler's settings of its session or transaction before the store's own statements,
/// which those settings could redirect.
pub(super) async fn reset(
    connection: &mut PgConnection,
    reset: Option<&str>,
    lock_timeout: &str,
) -> Result<(), sqlx::Error> {
    let Some(reset) = reset else {
        return Ok(());
    };
    let sql = format!("{reset}; SET LOCAL lock_timeout = '{lock_timeout}'");
    execute_composed(connection, sql).await
}

/// Undoes the writes since the last savepoint, and the claim.
pub(super) async fn undo_turn(
    connection: &mut PgConnection,
    key: &InboxKey,
) -> Result<(), sqlx::Error> {
    execute_constant(connection, "ROLLBACK TO SAVEPOINT evenkeel_claim").await?;
    release_claims(connection, std::slice::from_ref(key)).await
}

/// Releases claims.
pub(super) async fn release_claims(
    connection: &mut PgConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    let digests: Vec<[u8; 32]> = keys.iter().map(digest).collect();
    let forget = sqlx::query(RELEASE_CLAIMS).bind(digests);
    forget.execute(connection).await?;
    Ok(())
}

/// Runs constant SQL as plain text.
async fn execute_constant(
    connection: &mut PgConnection,
    sql: &'static str,
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await?;
    Ok(())
}

/// Runs SQL that was put together as plain text. It holds names and settings of this store, and no
/// data of an event.
async fn execute_composed(connection: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    let run = sqlx::raw_sql(AssertSqlSafe(sql));
    run.execute(connection).await.map(drop)
}

/// Stores the published events of claimed deliveries.
pub(super) async fn store_replies(
    connection: &mut PgConnection,
    staged: &[(InboxKey, Vec<u8>)],
) -> Result<(), sqlx::Error> {
    let digests: Vec<[u8; 32]> = staged.iter().map(|(key, _)| digest(key)).collect();
    let replies: Vec<&[u8]> = staged
        .iter()
        .map(|(_, replies)| replies.as_slice())
        .collect();
    let store = sqlx::query(STORE_REPLIES).bind(digests).bind(replies);
    store.execute(connection).await?;
    Ok(())
}

/// Deletes the published events of completed deliveries.
pub(super) async fn forget_replies(
    connection: &mut PgConnection,
    keys: &[InboxKey],
) -> Result<(), sqlx::Error> {
    let digests: Vec<[u8; 32]> = keys.iter().map(digest).collect();
    let forget = sqlx::query(FORGET_REPLIES).bind(digests);
    forget.execute(connection).await.map(drop)
}

/// Makes the transaction ready for the store's last statement and the commit, in one round trip:
/// discards its handlers' settings by `reset`, sets how long locks are waited for from here on, and
/// removes the guard. Fails if it is not the transaction in which the claims were made.
pub(super) async fn prepare_last_write(
    connection: &mut PgConnection,
    reset: Option<&str>,
    lock_timeout: &str,
) -> Result<(), sqlx::Error> {
    let timeout = format!("SET LOCAL lock_timeout = '{lock_timeout}'");
    let sql = match reset {
        Some(reset) => format!("{reset}; {timeout}; {REMOVE_GUARD}"),
        None => format!("{timeout}; {REMOVE_GUARD}"),
    };
    execute_composed(connection, sql).await
}

/// Makes the transaction ready to be committed and discards its handlers' settings by `reset`.
/// Fails if it is not the transaction in which the claims were made.
pub(super) async fn release_savepoint(
    connection: &mut PgConnection,
    reset: Option<&str>,
) -> Result<(), sqlx::Error> {
    match reset {
        Some(reset) => execute_composed(connection, format!("{REMOVE_GUARD}; {reset}")).await,
        None => execute_constant(connection, REMOVE_GUARD).await,
    }
}

/// Deletes at most `batch` rows completed longer ago than `older_than`. Returns the number of
/// deleted rows and, if any were deleted, the time before which completed deliveries may have been
/// deleted.
pub(super) async fn purge(
    connection: &mut PgConnection,
    older_than: Duration,
    batch: u32,
) -> Result<(u64, Option<String>), sqlx::Error> {
    let row = sqlx::query(PURGE)
        .bind(older_than.as_secs_f64())
        .bind(i64::from(batch))
        .bind(PURGED_BEFORE_MS)
        .fetch_one(connection)
        .await?;
    let gone: i64 = row.try_get("gone")?;
    Ok((gone.unsigned_abs(), row.try_get("purged_before")?))
}
