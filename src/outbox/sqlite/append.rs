//! Writes rows in the caller's transaction.
//!
//! SQLite gives the write lock to one transaction at a time, so numbers are drawn in the order of
//! the commits without a lock of the key. Numbers are never reused (`AUTOINCREMENT`).

use super::super::OutboxError;
use super::super::row::Row;
use super::super::store::limit;
use crate::event::OutgoingRecord;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

/// The beginning of the statement; the rows are appended to it.
const INSERT: &str = "INSERT INTO evenkeel_outbox (id, aggregatetype, aggregateid, type, payload, headers, binary_key, \
                      \"partition\", timestamp_ms, key_hash, slot) ";

/// Rows of one statement: each has 11 parameters, of which SQLite accepts 32,766.
const ROWS_MAX: usize = 500;

/// Writes `records` in the transaction of `connection`, in this order. Each statement costs a round
/// trip to the connection's thread, so there are few.
pub(crate) async fn append(
    connection: &mut SqliteConnection,
    records: &[OutgoingRecord],
) -> Result<(), OutboxError> {
    for records in records.chunks(ROWS_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new(INSERT);
        insert.push_values(records.iter().map(Row::of), |mut values, row| {
            values
                .push_bind(row.id)
                .push_bind(row.topic)
                .push_bind(row.key)
                .push_bind(row.ty)
                .push_bind(row.payload)
                .push_bind(row.headers)
                .push_bind(row.binary_key)
                .push_bind(row.partition)
                .push_bind(row.timestamp_ms)
                .push_bind(row.key_hash)
                .push_bind(row.slot);
        });
        insert
            .build()
            // A prepared statement for each number of rows would evict more useful ones from the
            // cache.
            .persistent(records.len() == 1)
            .execute(&mut *connection)
            .await
            .map_err(OutboxError::during("write an event"))?;
    }
    Ok(())
}

/// Writes `records` like [`append`], and returns the numbers of their rows, in this order.
///
/// The transaction has the write lock, and a number is the highest so far plus one
/// (`AUTOINCREMENT`), so the numbers of one call follow each other.
pub(super) async fn append_numbered(
    connection: &mut SqliteConnection,
    records: &[OutgoingRecord],
) -> Result<Vec<i64>, OutboxError> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    append(connection, records).await?;
    let last: i64 = sqlx::query_scalar("SELECT last_insert_rowid()")
        .fetch_one(connection)
        .await
        .map_err(OutboxError::during("write an event"))?;
    Ok((last - limit(records.len()) + 1..=last).collect())
}
