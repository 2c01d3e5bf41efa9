//! The statements of relays and operators, in PostgreSQL's SQL.
//!
//! Owns all statements except those that write events and create tables. Each statement is its own
//! transaction, so a cancelled call leaves nothing half done. Times are `clock_timestamp()`: the
//! server's clock, not the transaction's.

use super::super::row::{Row, SLOTS};
use super::super::status::{HeldKey, OpenTransaction, OutboxStatus, RelayShare};
use super::super::store::{
    Answer, Backlog, Page, ReadPage, RelaysAndLeases, RowId, SlotLease, Store, StoredRow,
};
use super::super::{OutboxError, store};
use super::PostgresOutbox;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Registers a relay or extends its registration, and removes those that have expired. Also removes
/// what others have from before the server's clock was set back.
const REGISTER: &str = "
    WITH gone AS (
        DELETE FROM evenkeel_outbox_relay
        WHERE id <> $1 AND (expires_at < clock_timestamp() OR expires_at > clock_timestamp() + $3 * interval '1 millisecond')
    ), freed AS (
        UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL
        WHERE owner <> $1 AND expires_at > clock_timestamp() + $3 * interval '1 millisecond'
    )
    INSERT INTO evenkeel_outbox_relay (id, expires_at) VALUES ($1, clock_timestamp() + $2 * interval '1 millisecond')
    ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at";

/// The registered relays, in an order that does not depend on the locale: all relays must agree on
/// it.
const RELAYS: &str = "SELECT id FROM evenkeel_outbox_relay WHERE expires_at > clock_timestamp() ORDER BY id COLLATE \"C\"";

/// The leases that hold, with the time that is left by the server's clock.
const LEASES: &str = "
    SELECT slot, owner, (extract(epoch FROM expires_at - clock_timestamp()) * 1000)::bigint AS expires_in_ms
    FROM evenkeel_outbox_lease WHERE owner IS NOT NULL AND expires_at > clock_timestamp() ORDER BY slot";

/// Takes slots that are free, expired or already this relay's. The condition is part of the update,
/// so of two relays that want one slot, one gets it.
const LEASE: &str = "
    UPDATE evenkeel_outbox_lease SET owner = $1, expires_at = clock_timestamp() + $3 * interval '1 millisecond'
    WHERE slot = ANY($2) AND (owner IS NULL OR owner = $1 OR expires_at <= clock_timestamp())
    RETURNING slot";

/// Frees slots of this relay. Those that another one has taken meanwhile stay untouched.
const RELEASE: &str = "UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL WHERE owner = $1 AND slot = ANY($2)";

/// Removes the registration of this relay.
const DEREGISTER: &str = "DELETE FROM evenkeel_outbox_relay WHERE id = $1";

/// Frees all slots of this relay and removes its registration, in one statement.
const LEAVE: &str = "
    WITH gone AS (DELETE FROM evenkeel_outbox_relay WHERE id = $1)
    UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL WHERE owner = $1";

/// Removes the registration of this relay, if another one is registered. It locks all registrations
/// in one order: of two relays that leave at once, the second waits, and a row that the first has
/// deleted meanwhile is then not read, although the statement's snapshot has it. A lock of another
/// kind would need a statement of its own before the snapshot. They are counted, because a search
/// for one would end at the first and lock no more.
const LEAVE_TO_ANOTHER: &str = "
    WITH live AS MATERIALIZED (
        SELECT id FROM evenkeel_outbox_relay WHERE expires_at > clock_timestamp() ORDER BY id FOR UPDATE
    ), gone AS (
        DELETE FROM evenkeel_outbox_relay WHERE id = $1 AND (SELECT count(*) FROM live WHERE id <> $1) > 0
    )
    SELECT count(*) > 0 FROM live WHERE id <> $1";

/// Sums the sizes in the order of the rows, and takes the rows that begin within the limit.
///
/// The keys to leave out are a subquery, which is hashed. A prepared statement would compare those
/// of an array with each row one after the other, and they may be as many as the rows in memory.
const READ: &str = "
    SELECT * FROM (
        SELECT *, sum(size) OVER (ORDER BY sequence) AS total, count(*) OVER () AS found FROM (
            SELECT sequence, id, key_hash, slot, aggregatetype, aggregateid, binary_key, payload, headers, partition,
                   timestamp_ms, coalesce(octet_length(payload), 0) + octet_length(headers) + 256 AS size
            FROM evenkeel_outbox
            WHERE slot = ANY($1) AND key_hash NOT IN (SELECT unnest($2::bigint[]))
              AND (aggregatetype <> ALL($3) OR key_hash = ANY($4))
            ORDER BY sequence LIMIT $5
        ) AS first
    ) AS paged
    WHERE total - size < $6 ORDER BY sequence";

/// If a crash of the server undoes a delete, the event is published again; that is not worth a wait
/// for the disk.
const DELETE: &str = "
    WITH unsynced AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    DELETE FROM evenkeel_outbox AS published
    USING unnest($1::bigint[], $2::text[]) AS gone (sequence, id)
    WHERE published.sequence = gone.sequence AND published.id = gone.id AND (SELECT count(*) FROM unsynced) > 0";

/// Writes reasons beside rows. The first time is kept, so operators see since when a key is held.
const MARK: &str = "
    UPDATE evenkeel_outbox AS refused
    SET failure = mark.failure, failed_at = coalesce(refused.failed_at, clock_timestamp())
    FROM unnest($1::bigint[], $2::text[], $3::text[]) AS mark (sequence, id, failure)
    WHERE refused.sequence = mark.sequence AND refused.id = mark.id";

/// A key with a marked row counts as held, whichever of its rows it is: its later rows wait behind
/// it.
const IS_DRAINED: &str = "
    SELECT NOT EXISTS (
        SELECT 1 FROM evenkeel_outbox
        WHERE aggregatetype <> ALL($1)
          AND key_hash NOT IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL)
    )";

/// Counts up to the limit, and estimates beyond it.
const BACKLOG: &str = "
    SELECT counted.rows AS counted,
           (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'evenkeel_outbox'::regclass) AS estimated,
           (SELECT (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint
            FROM evenkeel_outbox ORDER BY sequence LIMIT 1) AS oldest_ms,
           (SELECT count(DISTINCT key_hash) FROM evenkeel_outbox WHERE failure IS NOT NULL) AS held
    FROM (SELECT count(*) AS rows FROM (SELECT 1 FROM evenkeel_outbox LIMIT $1) AS first) AS counted";

/// A transaction that wrote to the table holds a lock on it until it ends.
const OPEN_TRANSACTION: &str = "
    SELECT a.pid, coalesce(a.application_name, '') AS application, coalesce(a.state, '') AS state,
           (extract(epoch FROM clock_timestamp() - a.xact_start) * 1000)::bigint AS age_ms
    FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'relation' AND l.relation = 'evenkeel_outbox'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND a.xact_start < clock_timestamp() - $1 * interval '1 millisecond'
    ORDER BY a.xact_start LIMIT 1";

/// The held keys, the longest wait first, each with the number of its rows.
const HELD: &str = "
    SELECT sequence, id, type, aggregatetype, aggregateid, failure, waiting.rows AS pending,
           (extract(epoch FROM failed_at) * 1000)::bigint AS since_ms
    FROM evenkeel_outbox JOIN (
        SELECT key_hash, count(*) AS rows FROM evenkeel_outbox
        WHERE key_hash IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL) GROUP BY key_hash
    ) AS waiting USING (key_hash)
    WHERE failure IS NOT NULL ORDER BY failed_at, sequence LIMIT 1000";

impl Store for PostgresOutbox {
    fn register<'a>(&'a self, relay: &'a str, lease: Duration) -> Answer<'a, RelaysAndLeases> {
        let failed = OutboxError::during("register the relay");
        Box::pin(async move {
            let mut session = self.database.session().await.map_err(&failed)?;
            sqlx::query(REGISTER)
                .bind(relay)
                .bind(store::milliseconds(lease))
                .bind(store::latest_end(lease))
                .execute(&mut *session)
                .await
                .map_err(&failed)?;
            let relays = sqlx::query_scalar(RELAYS).fetch_all(&mut *session).await;
            let leases = sqlx::query(LEASES).fetch_all(&mut *session).await;
            session.done().await.map_err(&failed)?;
            let leased = |row: PgRow| {
                Ok(SlotLease {
                    slot: row.try_get("slot")?,
                    owner: row.try_get("owner")?,
                    expires_in: store::duration(row.try_get("expires_in_ms")?),
                })
            };
            let leases: Result<_, sqlx::Error> =
                leases.and_then(|rows| rows.into_iter().map(leased).collect());
            Ok(RelaysAndLeases {
                relays: relays.map_err(&failed)?,
                leases: leases.map_err(&failed)?,
            })
        })
    }

    fn lease<'a>(
        &'a self,
        relay: &'a str,
        slots: &'a [i16],
        lease: Duration,
    ) -> Answer<'a, Vec<i16>> {
        Box::pin(async move {
            let failed = OutboxError::during("lease slots");
            let mut session = self.database.session().await.map_err(&failed)?;
            let leased = sqlx::query_scalar(LEASE)
                .bind(relay)
                .bind(slots)
                .bind(store::milliseconds(lease))
                .fetch_all(&mut *session)
                .await
                .map_err(&failed)?;
            session.done().await.map_err(&failed)?;
            Ok(leased)
        })
    }

    fn release<'a>(&'a self, relay: &'a str, slots: &'a [i16]) -> Answer<'a, ()> {
        let query = sqlx::query(RELEASE).bind(relay).bind(slots);
        self.execute("release slots", query)
    }

    fn deregister<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        self.execute("deregister the relay", sqlx::query(DEREGISTER).bind(relay))
    }

    fn leave<'a>(&'a self, relay: &'a str) -> Answer<'a, ()> {
        self.execute("release slots", sqlx::query(LEAVE).bind(relay))
    }

    fn leave_to_another<'a>(&'a self, relay: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let failed = OutboxError::during("hand over");
            let mut session = self.database.session().await.map_err(&failed)?;
            let left = sqlx::query_scalar(LEAVE_TO_ANOTHER)
                .bind(relay)
                .fetch_one(&mut *session)
                .await
                .map_err(&failed)?;
            session.done().await.map_err(&failed)?;
            Ok(left)
        })
    }

    fn read<'a>(&'a self, page: &'a Page) -> Answer<'a, ReadPage> {
        Box::pin(async move {
            let failed = OutboxError::during("read events");
            let mut session = self.database.session().await.map_err(&failed)?;
            let rows = sqlx::query(READ)
                .bind(&page.slots)
                .bind(&page.without_keys)
                .bind(&page.without_topics)
                .bind(&page.due_keys)
                .bind(store::limit(page.rows_max))
                .bind(store::limit(page.bytes_max))
                .fetch_all(&mut *session)
                .await
                .map_err(&failed)?;
            session.done().await.map_err(&failed)?;
            read_page(rows, page.rows_max).map_err(&failed)
        })
    }

    fn delete<'a>(&'a self, rows: &'a [RowId]) -> Answer<'a, ()> {
        let (sequences, events) = columns(rows.iter());
        let query = sqlx::query(DELETE).bind(sequences).bind(events);
        self.execute("delete published events", query)
    }

    fn mark<'a>(&'a self, failures: &'a BTreeMap<RowId, String>) -> Answer<'a, ()> {
        let (sequences, events) = columns(failures.keys());
        let reasons: Vec<String> = failures.values().map(|why| store::reason(why)).collect();
        let query = sqlx::query(MARK).bind(sequences).bind(events).bind(reasons);
        self.execute("mark refused events", query)
    }

    fn is_drained<'a>(&'a self, without_topics: &'a [String]) -> Answer<'a, bool> {
        Box::pin(async move {
            let failed = OutboxError::during("check whether it is drained");
            let mut session = self.database.session().await.map_err(&failed)?;
            let is_drained = sqlx::query_scalar(IS_DRAINED).bind(without_topics);
            is_drained.fetch_one(&mut *session).await.map_err(failed)
        })
    }

    fn backlog(&self) -> Answer<'_, Backlog> {
        Box::pin(async move {
            let failed = OutboxError::during("measure its backlog");
            let mut session = self.database.session().await.map_err(&failed)?;
            let row = sqlx::query(BACKLOG)
                .bind(store::limit(Backlog::EXACT_MAX as usize + 1))
                .fetch_one(&mut *session)
                .await;
            row.and_then(|row| {
                let (counted, estimated) = (row.try_get("counted")?, row.try_get("estimated")?);
                let oldest: Option<i64> = row.try_get("oldest_ms")?;
                Ok(Backlog {
                    pending: Backlog::pending(counted, estimated),
                    oldest: oldest.map(store::duration),
                    held_keys: store::count(row.try_get("held")?),
                })
            })
            .map_err(failed)
        })
    }

    fn open_transaction(&self, age: Duration) -> Answer<'_, Option<OpenTransaction>> {
        Box::pin(async move {
            let failed = OutboxError::during("find open transactions");
            let mut session = self.database.session().await.map_err(&failed)?;
            let row = sqlx::query(OPEN_TRANSACTION)
                .bind(store::milliseconds(age))
                .fetch_optional(&mut *session)
                .await;
            row.and_then(|row| {
                row.map(|row| {
                    Ok(OpenTransaction {
                        pid: row.try_get("pid")?,
                        application: row.try_get("application")?,
                        state: row.try_get("state")?,
                        age_ms: store::count(row.try_get("age_ms")?),
                    })
                })
                .transpose()
            })
            .map_err(failed)
        })
    }

    fn status(&self) -> Answer<'_, OutboxStatus> {
        Box::pin(async move {
            let failed = OutboxError::during("read its status");
            let backlog = self.backlog().await?;
            let open_transaction = self.open_transaction(Duration::from_secs(1)).await?;
            let mut session = self.database.session().await.map_err(&failed)?;
            let held = sqlx::query(HELD).fetch_all(&mut *session).await;
            let held: Result<Vec<HeldKey>, sqlx::Error> =
                held.and_then(|rows| rows.into_iter().map(held_key).collect());
            let shares: Vec<(String, i64)> = sqlx::query_as(
                "SELECT id, (SELECT count(*) FROM evenkeel_outbox_lease
                             WHERE owner = id AND evenkeel_outbox_lease.expires_at > clock_timestamp())
                 FROM evenkeel_outbox_relay WHERE expires_at > clock_timestamp() ORDER BY id",
            )
            .fetch_all(&mut *session)
            .await
            .map_err(&failed)?;
            let leased: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM evenkeel_outbox_lease WHERE owner IS NOT NULL AND expires_at > clock_timestamp()",
            )
            .fetch_one(&mut *session)
            .await
            .map_err(&failed)?;
            Ok(OutboxStatus {
                pending: backlog.pending,
                oldest_age_ms: backlog.oldest.map(|age| age.as_millis() as u64),
                held: held.map_err(&failed)?,
                relays: shares.into_iter().map(RelayShare::of).collect(),
                slots_free: SLOTS as u32 - leased.clamp(0, i64::from(SLOTS)) as u32,
                open_transaction,
            })
        })
    }

    fn committed(&self) -> BoxFuture<'_, ()> {
        self.wake_up.committed(&self.database)
    }
}

impl PostgresOutbox {
    /// Runs a statement that returns no rows, in a session of its own.
    fn execute<'a>(
        &'a self,
        doing: &'static str,
        query: sqlx::query::Query<'a, sqlx::Postgres, sqlx::postgres::PgArguments>,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let failed = OutboxError::during(doing);
            let mut session = self.database.session().await.map_err(&failed)?;
            query.execute(&mut *session).await.map_err(&failed)?;
            session.done().await.map_err(&failed)
        })
    }
}

/// Numbers and events of rows, as `unnest` takes them.
fn columns<'a>(rows: impl Iterator<Item = &'a RowId>) -> (Vec<i64>, Vec<&'a str>) {
    rows.map(|row| (row.sequence, &*row.event)).unzip()
}

/// The rows of [`READ`]. Each row carries the number of rows that were found before the limit of
/// bytes.
fn read_page(rows: Vec<PgRow>, rows_max: usize) -> Result<ReadPage, sqlx::Error> {
    let found: i64 = match rows.first() {
        Some(row) => row.try_get("found")?,
        None => 0,
    };
    let rows: Result<_, sqlx::Error> = rows.into_iter().map(stored_row).collect();
    Ok(ReadPage::of(rows?, found, rows_max))
}

/// A row as a relay reads it. The type is not read: no record is built from it.
fn stored_row(row: PgRow) -> Result<StoredRow, sqlx::Error> {
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
    let size: i32 = row.try_get("size")?;
    Ok(columns.into_stored(row.try_get("sequence")?, i64::from(size)))
}

/// A row of [`HELD`].
fn held_key(row: PgRow) -> Result<HeldKey, sqlx::Error> {
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
