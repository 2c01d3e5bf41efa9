//! Writes rows in the caller's transaction.
//!
//! The order of the rows of a key must be the order of the commits. Numbers alone do not give it: a
//! transaction may draw a number, and commit after one that drew a later number. Therefore a
//! transaction takes a lock of the key first and holds it until it ends, so numbers of a key are
//! drawn in the order of the commits.

use super::super::OutboxError;
use super::super::row::Row;
use crate::event::OutgoingRecord;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _};

/// One statement and round trip: takes the keys' locks, in the order of their numbers, so that two
/// statements cannot wait for each other; then inserts the rows, whose numbers are drawn under the
/// locks.
///
/// The locks are taken before the first number is drawn, because their count is computed before the
/// first row is inserted. The statement contains no `NOTIFY`: PostgreSQL serialises the commits of
/// transactions with notifications, across all databases of the server.
macro_rules! append_sql {
    () => {
        "
    WITH locked AS MATERIALIZED (
        SELECT pg_advisory_xact_lock(hash)
        FROM (SELECT DISTINCT hash FROM unnest($1::bigint[]) AS hash ORDER BY hash) AS ordered
    )
    INSERT INTO evenkeel_outbox
        (id, aggregatetype, aggregateid, type, payload, headers, binary_key, partition, timestamp_ms, key_hash, slot)
    SELECT id, topic, key, type, payload, headers, binary_key, partition, timestamp_ms, key_hash, slot
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::text[], $8::bytea[], $9::integer[],
                $10::bigint[], $11::bigint[], $12::smallint[]) WITH ORDINALITY
        AS record (id, topic, key, type, payload, headers, binary_key, partition, timestamp_ms, key_hash, slot, ordinal)
    WHERE (SELECT count(*) FROM locked) >= 0
    ORDER BY ordinal"
    };
}

const APPEND: &str = append_sql!();

/// The same, with the numbers of the rows.
const APPEND_NUMBERED: &str = concat!(append_sql!(), " RETURNING sequence");

/// Writes `records` in the transaction of `connection`, in this order, in one round trip.
///
/// `is_prepared` keeps the statement prepared on the connection. It must be false if a pooler gives
/// that connection to other clients.
///
/// Records of one key are ordered by the commits of their transactions: a key's lock is held until
/// the end of the transaction, or until a rollback to a savepoint set before the lock was taken.
/// Records without a key have no order and take no lock.
pub(crate) async fn append(
    connection: &mut PgConnection,
    records: &[OutgoingRecord],
    is_prepared: bool,
) -> Result<(), OutboxError> {
    if records.is_empty() {
        return Ok(());
    }
    insert(APPEND, records, is_prepared)
        .execute(connection)
        .await
        .map_err(OutboxError::during("write an event"))?;
    Ok(())
}

/// Writes `records` like [`append`], and returns the numbers of their rows, in this order.
pub(super) async fn append_numbered(
    connection: &mut PgConnection,
    records: &[OutgoingRecord],
    is_prepared: bool,
) -> Result<Vec<i64>, OutboxError> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    let failed = OutboxError::during("write an event");
    let rows = insert(APPEND_NUMBERED, records, is_prepared)
        .fetch_all(connection)
        .await
        .map_err(&failed)?;
    let numbers: Result<Vec<i64>, sqlx::Error> = rows.iter().map(|row| row.try_get(0)).collect();
    let mut numbers = numbers.map_err(&failed)?;
    // Numbers are drawn in the order of the records; returned rows have no order by contract.
    numbers.sort_unstable();
    Ok(numbers)
}

/// The statement `sql` with these records.
fn insert(
    sql: &'static str,
    records: &[OutgoingRecord],
    is_prepared: bool,
) -> Query<'static, Postgres, PgArguments> {
    let mut columns = Columns::default();
    records.iter().for_each(|record| columns.push(record));
    sqlx::query(sql)
        .persistent(is_prepared)
        .bind(columns.locks)
        .bind(columns.ids)
        .bind(columns.topics)
        .bind(columns.keys)
        .bind(columns.types)
        .bind(columns.payloads)
        .bind(columns.headers)
        .bind(columns.binary_keys)
        .bind(columns.partitions)
        .bind(columns.timestamps)
        .bind(columns.hashes)
        .bind(columns.slots)
}

/// Rows by column, as `unnest` takes them.
#[derive(Default)]
struct Columns {
    /// The hashes of the keys, with repetitions.
    locks: Vec<i64>,
    ids: Vec<String>,
    topics: Vec<String>,
    keys: Vec<Option<String>>,
    types: Vec<String>,
    payloads: Vec<Option<Vec<u8>>>,
    headers: Vec<String>,
    binary_keys: Vec<Option<Vec<u8>>>,
    partitions: Vec<Option<i32>>,
    timestamps: Vec<Option<i64>>,
    hashes: Vec<i64>,
    slots: Vec<i16>,
}

impl Columns {
    /// Adds a record as a row. A keyless record adds no lock.
    fn push(&mut self, record: &OutgoingRecord) {
        let row = Row::of(record);
        if record.key.is_some() {
            self.locks.push(row.key_hash);
        }
        self.ids.push(row.id);
        self.topics.push(row.topic);
        self.keys.push(row.key);
        self.types.push(row.ty);
        self.payloads.push(row.payload);
        self.headers.push(row.headers);
        self.binary_keys.push(row.binary_key);
        self.partitions.push(row.partition);
        self.timestamps.push(row.timestamp_ms);
        self.hashes.push(row.key_hash);
        self.slots.push(row.slot);
    }
}
