//! The SQL of the gateway's tables in SQLite.
//!
//! Owns the tables. Knows no transaction: the caller begins and commits. Lists are JSON arrays,
//! because SQLite has no other list type.

use super::super::maintenance::{COUNTED_ROWS_MAX, Measured, PURGE_ROWS_MAX, Total};
use super::super::plan::{Known, Plan, encode_headers};
use super::super::port::{AcceptedEvent, EventPlace};
use super::super::queue::Group;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};

/// The gateway's tables. The order of the second key's columns serves the search by id too.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS gateway_requests (
        principal TEXT NOT NULL,
        key TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        status INTEGER NOT NULL,
        headers TEXT NOT NULL,
        body BLOB NOT NULL,
        accepted_ms INTEGER NOT NULL,
        PRIMARY KEY (principal, key)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS gateway_requests_accepted ON gateway_requests (accepted_ms);
    CREATE TABLE IF NOT EXISTS gateway_events (
        id TEXT NOT NULL,
        source TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        type TEXT NOT NULL,
        topic TEXT NOT NULL,
        key BLOB,
        accepted_ms INTEGER NOT NULL,
        outbox_sequence INTEGER NOT NULL,
        PRIMARY KEY (id, source)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS gateway_events_accepted ON gateway_events (accepted_ms);";

const KNOWN_REQUESTS: &str = "
    SELECT known.principal, known.key, known.fingerprint, known.status, known.headers, known.body
    FROM json_each(?1) AS asked CROSS JOIN gateway_requests AS known
    WHERE known.principal = (asked.value ->> 0) AND known.key = (asked.value ->> 1)";

const KNOWN_EVENTS: &str = "
    SELECT known.id, known.source, known.fingerprint
    FROM json_each(?1) AS asked CROSS JOIN gateway_events AS known
    WHERE known.id = (asked.value ->> 0) AND known.source = (asked.value ->> 1)";

const INSERT_REQUESTS: &str = "INSERT INTO gateway_requests (principal, key, fingerprint, status, \
                               headers, body, accepted_ms) ";

const INSERT_EVENTS: &str = "INSERT INTO gateway_events (id, source, fingerprint, type, topic, \
                             key, accepted_ms, outbox_sequence) ";

/// Rows of one statement: each has 8 parameters, of which SQLite accepts 32,766.
const ROWS_MAX: usize = 500;

/// The number finds the row in the outbox, and the id makes sure of it.
const FIND: &str = "
    SELECT event.id, event.source, event.type, event.topic, event.key, event.accepted_ms,
           EXISTS (SELECT 1 FROM evenkeel_outbox AS waiting
                   WHERE waiting.sequence = event.outbox_sequence AND waiting.id = event.id)
               AS in_outbox
    FROM gateway_events AS event
    WHERE event.id = ?1 AND (?2 IS NULL OR event.source = ?2)
    ORDER BY event.accepted_ms DESC, event.source LIMIT 100";

/// The first rows that wait for no refused event of their key decide: the scan passes the rows of
/// held keys, as that of the relay does. `held` are the rows that `estimated` does not have: all of
/// the held keys if every waiting row is counted, otherwise those before the first waiting one.
/// Each count reads only rows that the scan has read. With a bare parameter as its `LIMIT`, SQLite
/// would prepare the statement anew each time.
const MEASURE: &str = "
    WITH waiting AS MATERIALIZED (
        SELECT sequence, created_at FROM evenkeel_outbox
        WHERE key_hash NOT IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL)
        ORDER BY sequence LIMIT ?1 + 0
    ), summary AS MATERIALIZED (
        SELECT count(*) AS found, min(sequence) AS head, min(created_at) AS oldest FROM waiting
    )
    SELECT found,
           coalesce((SELECT max(sequence) FROM evenkeel_outbox) - head + 1, 0) AS estimated,
           CASE WHEN found < ?1 THEN (SELECT count(*) FROM evenkeel_outbox) - found
                ELSE (SELECT count(*) FROM evenkeel_outbox WHERE sequence < head) END AS held,
           CAST(unixepoch('subsec') * 1000 AS INTEGER) - oldest AS oldest_ms,
           coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'evenkeel_outbox'), 0)
               AS written
    FROM summary";

const PURGE_REQUESTS: &str = "
    DELETE FROM gateway_requests WHERE (principal, key) IN (
        SELECT principal, key FROM gateway_requests WHERE accepted_ms < ?1
        ORDER BY accepted_ms LIMIT ?2)";

const PURGE_EVENTS: &str = "
    DELETE FROM gateway_events WHERE (id, source) IN (
        SELECT id, source FROM gateway_events WHERE accepted_ms < ?1
        ORDER BY accepted_ms LIMIT ?2)";

/// Creates missing tables.
pub(super) async fn create_tables(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(TABLES).execute(connection).await.map(drop)
}

/// What the file knows of the group's identities.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    group: &Group,
) -> Result<Known, sqlx::Error> {
    let mut known = Known::default();
    let claims = group
        .requests()
        .filter_map(|request| request.idempotency.as_ref());
    let claims: Vec<_> = claims.map(|claim| (&claim.principal, &claim.key)).collect();
    if !claims.is_empty() {
        let rows = sqlx::query(KNOWN_REQUESTS).bind(list(&claims));
        for row in rows.fetch_all(&mut *connection).await? {
            let identity = (row.try_get("principal")?, row.try_get("key")?);
            known.add_request(
                identity,
                row.try_get("fingerprint")?,
                row.try_get("status")?,
                row.try_get("headers")?,
                row.try_get("body")?,
            )?;
        }
    }
    let events = group.requests().flat_map(|request| &request.events);
    let events: Vec<_> = events.map(|event| (&event.id, &event.source)).collect();
    let rows = sqlx::query(KNOWN_EVENTS).bind(list(&events));
    for row in rows.fetch_all(connection).await? {
        let identity = (row.try_get("source")?, row.try_get("id")?);
        known.add_event(identity, row.try_get("fingerprint")?);
    }
    Ok(known)
}

/// Writes the rows of a plan. `sequences` are the numbers of the events in the outbox, in order.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    plan: &Plan<'_>,
    sequences: &[i64],
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    for requests in plan.requests.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(INSERT_REQUESTS);
        insert.push_values(requests, |mut values, (claim, answer)| {
            values
                .push_bind(claim.principal.as_str())
                .push_bind(claim.key.as_str())
                .push_bind(claim.fingerprint.as_slice())
                .push_bind(i32::from(answer.status))
                .push_bind(encode_headers(answer))
                .push_bind(&answer.body[..])
                .push_bind(now_ms);
        });
        let insert = insert.build().persistent(requests.len() == 1);
        insert.execute(&mut *connection).await?;
    }
    let rows: Vec<(&AcceptedEvent, i64)> = plan
        .events
        .iter()
        .copied()
        .zip(sequences.iter().copied())
        .collect();
    for rows in rows.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(INSERT_EVENTS);
        insert.push_values(rows, |mut values, (event, sequence)| {
            values
                .push_bind(event.id.as_str())
                .push_bind(event.source.as_str())
                .push_bind(event.fingerprint.as_slice())
                .push_bind(event.ty.as_str())
                .push_bind(event.record.topic.as_str())
                .push_bind(event.record.key.as_deref())
                .push_bind(now_ms)
                .push_bind(*sequence);
        });
        let insert = insert.build().persistent(rows.len() == 1);
        insert.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The accepted events with this id.
pub(super) async fn find(
    connection: &mut SqliteConnection,
    id: &str,
    source: Option<&str>,
) -> Result<Vec<EventPlace>, sqlx::Error> {
    let rows = sqlx::query(FIND)
        .bind(id)
        .bind(source)
        .fetch_all(connection)
        .await?;
    rows.into_iter().map(place).collect()
}

fn place(row: SqliteRow) -> Result<EventPlace, sqlx::Error> {
    let key: Option<Vec<u8>> = row.try_get("key")?;
    Ok(EventPlace {
        source: row.try_get("source")?,
        id: row.try_get("id")?,
        ty: row.try_get("type")?,
        topic: row.try_get("topic")?,
        key: key.map(Into::into),
        accepted_ms: row.try_get("accepted_ms")?,
        in_outbox: row.try_get("in_outbox")?,
        position: None,
    })
}

/// Measures the outbox.
pub(super) async fn measure(connection: &mut SqliteConnection) -> Result<Measured, sqlx::Error> {
    let row = sqlx::query(MEASURE)
        .bind(COUNTED_ROWS_MAX)
        .fetch_one(connection)
        .await?;
    Ok(Measured {
        waiting: row.try_get("found")?,
        estimated: row.try_get("estimated")?,
        oldest_ms: row.try_get("oldest_ms")?,
        total: Total::Written {
            written: row.try_get("written")?,
            held: row.try_get("held")?,
        },
    })
}

/// Deletes old identities. Returns whether there may be more.
pub(super) async fn purge(
    connection: &mut SqliteConnection,
    before_ms: i64,
) -> Result<bool, sqlx::Error> {
    let mut has_more = false;
    for statement in [PURGE_REQUESTS, PURGE_EVENTS] {
        let purge = sqlx::query(statement).bind(before_ms).bind(PURGE_ROWS_MAX);
        let deleted = purge.execute(&mut *connection).await?.rows_affected();
        has_more |= deleted >= PURGE_ROWS_MAX.unsigned_abs();
    }
    Ok(has_more)
}

/// A list as a JSON array.
fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap_or_else(|_| unreachable!("strings always serialise"))
}
