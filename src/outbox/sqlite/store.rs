//! What relays and operators ask of the file.
//!
//! Owns the calls; `statements.rs` has their SQL. Each statement is its own transaction.
//!
//! The connections do not wait for the write lock by themselves: SQLite's own waiting favours the
//! last owner, and an inbox on the same file rests from time to time. Each statement is tried again
//! every 2 ms instead, and usually gets such a rest.

use super::super::OutboxError;
use super::super::row::{Row, SLOTS};
use super::super::status::{HeldKey, OpenTransaction, OutboxStatus, RelayShare};
use super::super::store::{
    self, Answer, Backlog, Page, ReadPage, RelaysAndLeases, RowId, SlotLease, Store, StoredRow,
};
use super::SqliteOutbox;
use super::statements::{
    BACKLOG, DELETE, DEREGISTER, FREE_OUTDATED_LEASES, HAS_LEFT_TO_ANOTHER, HELD, IS_DRAINED,
    LEASE, LEASED, LEASES, LEAVE_TO_ANOTHER, MARK, READ, REGISTER, RELAYS, RELEASE, RELEASE_ALL,
    REMOVE_EXPIRED_RELAYS, SHARES,
};
use crate::sqlite::is_busy;
use futures_util::future::BoxFuture;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, Sqlite, Transaction};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Pause between two tries to get the write lock: shorter than the rest of an inbox between its
/// turns.
const LOCK_RETRY: Duration = Duration::from_millis(2);

/// How long the write lock is tried for; a relay stops waiting earlier.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

impl Store for SqliteOutbox {
    fn register<'a>(&'a self, relay: &'a str, lease: Duration) -> Answer<'a, RelaysAndLeases> {
        Box::pin(
            self.retry_while_locked("register the relay", move || async move {
                let pool = &self.pool;
                sqlx::query(REGISTER)
                    .bind(relay)
                    .bind(store::milliseconds(lease))
                    .execute(pool)
                    .await?;
                for statement in [REMOVE_EXPIRED_RELAYS, FREE_OUTDATED_LEASES] {
                    sqlx::query(statement)
                        .bind(relay)
                        .bind(store::latest_end(lease))
                        .execute(pool)
                        .await?;
                }
                let leases = sqlx::query(LEASES).fetch_all(pool).await?;
                let leased = |row: SqliteRow| {
                    Ok(SlotLease {
                        slot: row.try_get("slot")?,
                        owner: row.try_get("owner")?,
                        expires_in: store::duration(row.try_get("expires_in_ms")?),
                    })
                };
                Ok(RelaysAndLeases {
                    relays: sqlx::query_scalar(RELAYS).fetch_all(pool).await?,
                    leases: leases
                        .into_iter()
                        .map(leased)
                        .collect::<Result<_, sqlx::Error>>()?,
                })
            }),
        )
    }

    fn lease<'a>(
        &'a self,
        relay: &'a str,
        slots: &'a [i16],
        lease: Duration,
    ) -> Answer<'a, Vec<i16>> {
        Box::pin(self.retry_while_locked("lease slots", move || async move {
            sqlx::query_scalar(LEASE)
                .bind(relay)
                .bind(list(slots))
                .bind(store::milliseconds(lease))
                .fetch_all(&self.pool)
                .await
        }))
    }

    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()> {
        Box::pin(
            self.retry_while_locked("release slots", move || async move {
                let query = sqlx::query(RELEASE).bind(relay).bind(list(slots));
                query.execute(&self.pool).await.map(drop)
            }),
        )
    }

    fn deregister<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        Box::pin(
            self.retry_while_locked("deregister the relay", move || async move {
                let query = sqlx::query(DEREGISTER).bind(relay);
                query.execute(&self.pool).await.map(drop)
            }),
        )
    }

    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        Box::pin(
            self.retry_while_locked("release slots", move || async move {
                for statement in [RELEASE_ALL, DEREGISTER] {
                    sqlx::query(statement)
                        .bind(relay)
                        .execute(&self.pool)
                        .await?;
                }
                Ok(())
            }),
        )
    }

    /// The second statement needs no transaction: a relay that is not registered any more was not
    /// the last one, whichever are registered now.
    fn leave_to_another<'a>(&'a self, relay: &'a str) -> Answer<'a, bool> {
        Box::pin(self.retry_while_locked("hand over", move || async move {
            let left = sqlx::query(LEAVE_TO_ANOTHER).bind(relay);
            left.execute(&self.pool).await?;
            let has_left = sqlx::query_scalar(HAS_LEFT_TO_ANOTHER).bind(relay);
            has_left.fetch_one(&self.pool).await
        }))
    }

    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage> {
        Box::pin(self.retry_while_locked("read events", move || async move {
            let rows = sqlx::query(READ)
                .bind(list(&page.slots))
                .bind(list(&page.without_keys))
                .bind(list(&page.without_topics))
                .bind(list(&page.due_keys))
                .bind(store::limit(page.rows_max))
                .bind(store::limit(page.bytes_max))
                .fetch_all(&self.pool)
                .await?;
            read_page(rows, page.rows_max)
        }))
    }

    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()> {
        let rows = rows.iter().map(|row| (row.sequence, &*row.event));
        let rows = list(&rows.collect::<Vec<_>>());
        Box::pin(async move {
            self.retry_while_locked("delete published events", || async {
                let query = sqlx::query(DELETE).bind(&rows);
                query.execute(&self.pool).await.map(drop)
            })
            .await
        })
    }

    fn mark<'a>(&'a self, failures: &'a BTreeMap<RowId, String>) -> Answer<'a, ()> {
        let marks = failures
            .iter()
            .map(|(row, why)| (row.sequence, &*row.event, store::reason(why)));
        let marks = list(&marks.collect::<Vec<_>>());
        Box::pin(async move {
            self.retry_while_locked("mark refused events", || async {
                let query = sqlx::query(MARK).bind(&marks);
                query.execute(&self.pool).await.map(drop)
            })
            .await
        })
    }

    fn is_drained<'a>(&'a self, without_topics: &'a [String]) -> Answer<'a, bool> {
        Box::pin(
            self.retry_while_locked("check whether it is drained", move || async move {
                let query = sqlx::query_scalar(IS_DRAINED).bind(list(without_topics));
                query.fetch_one(&self.pool).await
            }),
        )
    }

    fn backlog(&self) -> Answer<'_, Backlog> {
        Box::pin(
            self.retry_while_locked("measure its backlog", move || async move {
                let row = sqlx::query(BACKLOG)
                    .bind(store::limit(Backlog::EXACT_MAX as usize + 1))
                    .fetch_one(&self.pool)
                    .await?;
                let (counted, estimated) = (row.try_get("counted")?, row.try_get("estimated")?);
                let oldest: Option<i64> = row.try_get("oldest_ms")?;
                Ok(Backlog {
                    pending: Backlog::pending(counted, estimated),
                    oldest: oldest.map(store::duration),
                    held_keys: store::count(row.try_get("held")?),
                })
            }),
        )
    }

    /// None: while a transaction writes, no other can, so it appears as a store that does not
    /// answer.
    fn open_transaction(&self, _age: Duration) -> Answer<'_, Option<OpenTransaction>> {
        Box::pin(async { Ok(None) })
    }

    fn status(&self) -> Answer<'_, OutboxStatus> {
        Box::pin(async move {
            let backlog = self.backlog().await?;
            self.retry_while_locked("read its status", move || async move {
                let held = sqlx::query(HELD).fetch_all(&self.pool).await?;
                let held: Result<Vec<HeldKey>, sqlx::Error> =
                    held.into_iter().map(held_key).collect();
                let shares: Vec<(String, i64)> =
                    sqlx::query_as(SHARES).fetch_all(&self.pool).await?;
                let leased: i64 = sqlx::query_scalar(LEASED).fetch_one(&self.pool).await?;
                Ok(OutboxStatus {
                    pending: backlog.pending,
                    oldest_age_ms: backlog.oldest.map(|age| age.as_millis() as u64),
                    held: held?,
                    relays: shares.into_iter().map(RelayShare::of).collect(),
                    slots_free: SLOTS as u32 - leased.clamp(0, i64::from(SLOTS)) as u32,
                    open_transaction: None,
                })
            })
            .await
        })
    }

    /// Commits of other processes are not notified: relays find them by polling.
    fn committed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.committed.notified())
    }
}

impl SqliteOutbox {
    /// Begins a transaction that has the write lock.
    pub(super) async fn begin(
        &self,
        doing: &'static str,
    ) -> Result<Transaction<'static, Sqlite>, OutboxError> {
        self.retry_while_locked(doing, move || async move {
            self.pool.begin_with("BEGIN IMMEDIATE").await
        })
        .await
    }

    /// Retries until the write lock is free, up to [`LOCK_TIMEOUT`].
    ///
    /// # Errors
    /// [`OutboxError::Store`] with the last error.
    async fn retry_while_locked<T, F: Future<Output = Result<T, sqlx::Error>>>(
        &self,
        doing: &'static str,
        attempt: impl Fn() -> F,
    ) -> Result<T, OutboxError> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match attempt().await {
                Err(error) if is_busy(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                result => return result.map_err(OutboxError::during(doing)),
            }
        }
    }
}

/// A list as a JSON array.
fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values)
        .unwrap_or_else(|_| unreachable!("numbers and names always serialise"))
}

/// The rows of [`READ`]. Each row carries the number of rows that were found before the limit of
/// bytes.
fn read_page(rows: Vec<SqliteRow>, rows_max: usize) -> Result<ReadPage, sqlx::Error> {
    let found: i64 = match rows.first() {
        Some(row) => row.try_get("found")?,
        None => 0,
    };
    let rows: Result<_, sqlx::Error> = rows.into_iter().map(stored_row).collect();
    Ok(ReadPage::of(rows?, found, rows_max))
}

/// A row as a relay reads it. The type is not read: no record is built from it.
fn stored_row(row: SqliteRow) -> Result<StoredRow, sqlx::Error> {
    let columns = Row {
        id: row.try_get("id")?,
        ty: String::new(),
        topic: row.try_get("aggregatetype")?,
        key: row.try_get("aggregateid")?,
        binary_key: row.try_get("binary_key")?,
        payload: row.try_get("payload")?,
        headers: row.try_get("headers")?,
        partition: row.try_get("partition")?,
        timestamp_ms: row.try_get("timestamp_ms")?,
        key_hash: row.try_get("key_hash")?,
        slot: row.try_get("slot")?,
    };
    Ok(columns.into_stored(row.try_get("sequence")?, row.try_get("size")?))
}

/// A row of [`HELD`].
fn held_key(row: SqliteRow) -> Result<HeldKey, sqlx::Error> {
    Ok(HeldKey {
        sequence: row.try_get("sequence")?,
        id: row.try_get("id")?,
        r#type: row.try_get("type")?,
        topic: row.try_get("aggregatetype")?,
        key: row.try_get("aggregateid")?,
        since_ms: row.try_get("since_ms")?,
        reason: row.try_get("failure")?,
        pending: store::count(row.try_get("pending")?),
    })
}
