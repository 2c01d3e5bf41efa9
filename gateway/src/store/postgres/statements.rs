//! The SQL of the gateway's tables in PostgreSQL.
//!
//! Owns all statements except those that create the tables. Knows no transaction: the caller begins
//! and commits.

use super::super::maintenance::{COUNTED_ROWS_MAX, Measured, PURGE_ROWS_MAX, Total};
use super::super::plan::{Known, Plan, encode_headers};
use super::super::port::{EventPlace, IdempotencyClaim};
use super::super::queue::Group;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use std::collections::HashSet;

/// Locks keys until the end of the transaction, without waiting.
const LOCK_KEYS: &str = "
    SELECT hash, pg_try_advisory_xact_lock(hash) AS is_locked
    FROM (SELECT DISTINCT hash FROM unnest($1::bigint[]) AS hash) AS keys";

const KNOWN_REQUESTS: &str = "
    SELECT known.principal, known.key, known.fingerprint, known.status, known.headers, known.body
    FROM unnest($1::text[], $2::text[]) AS asked (principal, key)
    JOIN gateway_requests AS known ON known.principal = asked.principal AND known.key = asked.key";

const KNOWN_EVENTS: &str = "
    SELECT known.id, known.source, known.fingerprint
    FROM unnest($1::text[], $2::text[]) AS asked (id, source)
    JOIN gateway_events AS known ON known.id = asked.id AND known.source = asked.source";

const INSERT_REQUESTS: &str = "
    INSERT INTO gateway_requests (principal, key, fingerprint, status, headers, body, accepted_ms)
    SELECT principal, key, fingerprint, status, headers, body, $7
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::integer[], $5::text[], $6::bytea[])
        AS request (principal, key, fingerprint, status, headers, body)";

/// In one order, so that two transactions with the same ids wait for each other only one way.
const INSERT_EVENTS: &str = "
    INSERT INTO gateway_events
        (id, source, fingerprint, type, topic, key, accepted_ms, outbox_sequence)
    SELECT id, source, fingerprint, type, topic, key, $8, sequence
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::bytea[],
                $7::bigint[])
        AS event (id, source, fingerprint, type, topic, key, sequence)
    ORDER BY id, source
    ON CONFLICT DO NOTHING";

/// The number finds the row in the outbox, and the id makes sure of it.
const FIND: &str = "
    SELECT event.id, event.source, event.type, event.topic, event.key, event.accepted_ms,
           EXISTS (SELECT 1 FROM evenkeel_outbox AS waiting
                   WHERE waiting.sequence = event.outbox_sequence AND waiting.id = event.id)
               AS in_outbox
    FROM gateway_events AS event
    WHERE event.id = $1 AND ($2::text IS NULL OR event.source = $2)
    ORDER BY event.accepted_ms DESC, event.source LIMIT 100";

/// The first rows that wait for no refused event of their key decide: the scan passes the rows of
/// held keys, as that of the relay does. The rows that all relays deleted are counted by the
/// server's statistics, which are at most a second late.
const MEASURE: &str = "
    WITH waiting AS MATERIALIZED (
        SELECT sequence, created_at FROM evenkeel_outbox
        WHERE key_hash NOT IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL)
        ORDER BY sequence LIMIT $1
    ), summary AS MATERIALIZED (
        SELECT count(*) AS found, min(sequence) AS head, min(created_at) AS oldest FROM waiting
    )
    SELECT found,
           coalesce((SELECT max(sequence) FROM evenkeel_outbox) - head + 1, 0) AS estimated,
           (extract(epoch FROM clock_timestamp() - oldest) * 1000)::bigint AS oldest_ms,
           coalesce(pg_stat_get_tuples_deleted('evenkeel_outbox'::regclass), 0) AS deleted
    FROM summary";

/// Several gateways purge at the same time: each takes rows that no other has.
const PURGE_REQUESTS: &str = "
    WITH expired AS MATERIALIZED (
        SELECT principal, key FROM gateway_requests WHERE accepted_ms < $1
        ORDER BY accepted_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway_requests AS request USING expired
    WHERE request.principal = expired.principal AND request.key = expired.key";

const PURGE_EVENTS: &str = "
    WITH expired AS MATERIALIZED (
        SELECT id, source FROM gateway_events WHERE accepted_ms < $1
        ORDER BY accepted_ms LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway_events AS event USING expired
    WHERE event.id = expired.id AND event.source = expired.source";

/// What the database knows of the group's identities. Locks its keys first, so that what is read
/// afterwards holds until the end of the transaction.
pub(super) async fn known(
    connection: &mut PgConnection,
    group: &Group,
) -> Result<Known, sqlx::Error> {
    let mut known = Known::default();
    let claims = group
        .requests()
        .filter_map(|request| request.idempotency.as_ref());
    let claims: Vec<&IdempotencyClaim> = claims.collect();
    if !claims.is_empty() {
        lock_keys(connection, &claims, &mut known).await?;
        let (principals, keys): (Vec<&str>, Vec<&str>) = claims
            .iter()
            .map(|claim| (claim.principal.as_str(), claim.key.as_str()))
            .unzip();
        let rows = sqlx::query(KNOWN_REQUESTS).bind(principals).bind(keys);
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
    let (ids, sources): (Vec<&str>, Vec<&str>) = events
        .map(|event| (event.id.as_str(), event.source.as_str()))
        .unzip();
    let rows = sqlx::query(KNOWN_EVENTS).bind(ids).bind(sources);
    for row in rows.fetch_all(connection).await? {
        let identity = (row.try_get("source")?, row.try_get("id")?);
        known.add_event(identity, row.try_get("fingerprint")?);
    }
    Ok(known)
}

/// Locks the keys of these claims, and adds those that another transaction has locked.
async fn lock_keys(
    connection: &mut PgConnection,
    claims: &[&IdempotencyClaim],
    known: &mut Known,
) -> Result<(), sqlx::Error> {
    let hashes: Vec<i64> = claims.iter().map(|claim| hash(claim)).collect();
    let locks = sqlx::query(LOCK_KEYS).bind(hashes);
    let mut under_way: HashSet<i64> = HashSet::new();
    for row in locks.fetch_all(connection).await? {
        if !row.try_get::<bool, _>("is_locked")? {
            under_way.insert(row.try_get("hash")?);
        }
    }
    for claim in claims {
        if under_way.contains(&hash(claim)) {
            known.add_under_way(claim);
        }
    }
    Ok(())
}

/// The number by which a key is locked: the same in every gateway and release.
pub(super) fn hash(claim: &IdempotencyClaim) -> i64 {
    let digest = Sha256::new()
        .chain_update(b"evenkeel gateway idempotency key\0")
        .chain_update(claim.principal.as_bytes())
        .chain_update(b"\0")
        .chain_update(claim.key.as_bytes())
        .finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// Writes the rows of a plan. `sequences` are the numbers of the events in the outbox, in order.
/// Returns false if another transaction has inserted one of the ids meanwhile: roll back then.
pub(super) async fn insert(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    sequences: &[i64],
    now_ms: i64,
) -> Result<bool, sqlx::Error> {
    if !plan.requests.is_empty() {
        insert_requests(connection, plan, now_ms).await?;
    }
    if plan.events.is_empty() {
        return Ok(true);
    }
    let events = &plan.events;
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    let sources: Vec<&str> = events.iter().map(|event| event.source.as_str()).collect();
    let fingerprints: Vec<&[u8]> = events
        .iter()
        .map(|event| event.fingerprint.as_slice())
        .collect();
    let types: Vec<&str> = events.iter().map(|event| event.ty.as_str()).collect();
    let topics: Vec<&str> = events
        .iter()
        .map(|event| event.record.topic.as_str())
        .collect();
    let keys: Vec<Option<&[u8]>> = events
        .iter()
        .map(|event| event.record.key.as_deref())
        .collect();
    let inserted = sqlx::query(INSERT_EVENTS)
        .bind(ids)
        .bind(sources)
        .bind(fingerprints)
        .bind(types)
        .bind(topics)
        .bind(keys)
        .bind(sequences)
        .bind(now_ms)
        .execute(connection)
        .await?;
    Ok(usize::try_from(inserted.rows_affected()) == Ok(events.len()))
}

async fn insert_requests(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    now_ms: i64,
) -> Result<(), sqlx::Error> {
    let requests = &plan.requests;
    let principals: Vec<&str> = requests
        .iter()
        .map(|(claim, _)| claim.principal.as_str())
        .collect();
    let keys: Vec<&str> = requests
        .iter()
        .map(|(claim, _)| claim.key.as_str())
        .collect();
    let fingerprints: Vec<&[u8]> = requests
        .iter()
        .map(|(claim, _)| claim.fingerprint.as_slice())
        .collect();
    let statuses: Vec<i32> = requests
        .iter()
        .map(|(_, answer)| answer.status.into())
        .collect();
    let headers: Vec<String> = requests
        .iter()
        .map(|(_, answer)| encode_headers(answer))
        .collect();
    let bodies: Vec<&[u8]> = requests
        .iter()
        .map(|(_, answer)| &answer.body[..])
        .collect();
    let insert = sqlx::query(INSERT_REQUESTS)
        .bind(principals)
        .bind(keys)
        .bind(fingerprints)
        .bind(statuses)
        .bind(headers)
        .bind(bodies)
        .bind(now_ms);
    insert.execute(connection).await.map(drop)
}

/// The accepted events with this id.
pub(super) async fn find(
    connection: &mut PgConnection,
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

fn place(row: PgRow) -> Result<EventPlace, sqlx::Error> {
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
pub(super) async fn measure(connection: &mut PgConnection) -> Result<Measured, sqlx::Error> {
    let row = sqlx::query(MEASURE)
        .bind(COUNTED_ROWS_MAX)
        .fetch_one(connection)
        .await?;
    Ok(Measured {
        waiting: row.try_get("found")?,
        estimated: row.try_get("estimated")?,
        oldest_ms: row.try_get("oldest_ms")?,
        total: Total::Deleted(row.try_get("deleted")?),
    })
}

/// Deletes old identities. Returns whether there may be more.
pub(super) async fn purge(
    connection: &mut PgConnection,
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
