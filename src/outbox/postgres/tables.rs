//! Creates and upgrades the tables.
//!
//! Owns the outbox's DDL and version. The table `evenkeel_meta` is shared with the other tables of
//! evenkeel in the database.

use super::super::OutboxError;
use super::super::row::SLOTS;
use super::super::version;
use crate::postgres::{META, Migration, lock_schema, meta, set_meta};
use sqlx::{AssertSqlSafe, PgConnection};

/// The row of `evenkeel_meta` that holds the outbox's version.
const VERSION_NAME: &str = "outbox_version";

/// The upgrade from each version to the next; the first creates version 1. Entries are only ever
/// added.
///
/// Rows are deleted soon after they are written: autovacuum must be triggered by the number of dead
/// rows, not by their share.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE evenkeel_outbox (
        sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL,
        aggregatetype text NOT NULL,
        aggregateid text,
        type text NOT NULL,
        payload bytea,
        headers text NOT NULL,
        binary_key bytea,
        partition integer,
        timestamp_ms bigint,
        key_hash bigint NOT NULL,
        slot smallint NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        failure text,
        failed_at timestamptz
    ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
    CREATE INDEX evenkeel_outbox_failed ON evenkeel_outbox (sequence) WHERE failure IS NOT NULL;
    CREATE TABLE evenkeel_outbox_lease (
        slot smallint PRIMARY KEY,
        owner text,
        expires_at timestamptz
    );
    CREATE TABLE evenkeel_outbox_relay (
        id text PRIMARY KEY,
        expires_at timestamptz NOT NULL
    );
"];

/// The version that this release creates.
pub(super) const NEWEST: usize = MIGRATIONS.len();

/// Creates missing tables, if the settings allow it, and checks the version, in the transaction of
/// `connection`. That transaction holds the schema lock from then on.
///
/// # Errors
/// [`OutboxError::Foreign`] for a version that this process may not use, with the remedy.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    migration: Migration,
) -> Result<(), OutboxError> {
    let failed = OutboxError::during("prepare its tables");
    lock_schema(connection).await.map_err(&failed)?;
    let version = version(connection).await?;
    match migration {
        _ if version == NEWEST => {}
        Migration::Elsewhere => return Err(version::behind(version, NEWEST)),
        Migration::OnOpen => {
            let migrate = sqlx::raw_sql(AssertSqlSafe(self::migration(version)));
            migrate.execute(&mut *connection).await.map_err(&failed)?;
        }
    }
    check_sequence_cache(connection).await?;
    check_sequence_position(connection).await
}

/// The SQL that upgrades the outbox from this version to the newest one. The last statement sets
/// the version, and only upwards: two instances of different releases may start at the same time.
pub(super) fn migration(from: usize) -> String {
    let steps = MIGRATIONS.get(from..).unwrap_or_default().concat();
    let slots = i32::from(SLOTS) - 1;
    let version = set_meta(VERSION_NAME, NEWEST);
    format!(
        "{META}{steps}    INSERT INTO evenkeel_outbox_lease (slot) SELECT generate_series(0, {slots}) ON CONFLICT DO NOTHING;
    {version}"
    )
}

/// Refuses a sequence that caches numbers per session: a later commit of a key would have the lower
/// number. Some databases configure every sequence so, and an administrator may have set it for
/// speed.
async fn check_sequence_cache(connection: &mut PgConnection) -> Result<(), OutboxError> {
    let cached: Option<i64> = sqlx::query_scalar(
        "SELECT seqcache FROM pg_sequence WHERE seqrelid = pg_get_serial_sequence('evenkeel_outbox', 'sequence')::regclass",
    )
    .fetch_optional(connection)
    .await
    .map_err(OutboxError::during("check its sequence"))?;
    match cached {
        Some(cached) if cached > 1 => Err(OutboxError::Foreign {
            reason: format!(
                "caches {cached} numbers of its sequence for each session, so that events of one \
                 key would be published out of order; fix it with: ALTER TABLE evenkeel_outbox \
                 ALTER COLUMN sequence SET CACHE 1"
            ),
        }),
        _ => Ok(()),
    }
}

/// Refuses a sequence behind the rows: new rows would be published before older ones of their key,
/// or would not be written at all, because their number is taken. Logical replication copies rows
/// but no sequences, and so does a restore of data alone.
async fn check_sequence_position(connection: &mut PgConnection) -> Result<(), OutboxError> {
    let failed = OutboxError::during("check its sequence");
    // Writing events needs no right to read the sequence: then it is not checked.
    let readable: Option<String> = sqlx::query_scalar(
        "SELECT name FROM pg_get_serial_sequence('evenkeel_outbox', 'sequence') AS name
         WHERE has_sequence_privilege(name, 'SELECT')",
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(&failed)?;
    let Some(name) = readable else {
        return Ok(());
    };
    // The server quotes the name where necessary.
    let behind = format!(
        "SELECT coalesce((SELECT max(sequence) FROM evenkeel_outbox) >= last_value + is_called::integer, false) FROM {name}"
    );
    let is_behind: bool = sqlx::query_scalar(AssertSqlSafe(behind))
        .fetch_one(connection)
        .await
        .map_err(&failed)?;
    match is_behind {
        true => Err(OutboxError::Foreign {
            reason: format!(
                "has rows whose numbers its sequence has not reached, as after a failover by \
                 logical replication, so that events of one key would be published out of order; \
                 fix it with: SELECT setval('{name}', max(sequence)) FROM evenkeel_outbox"
            ),
        }),
        false => Ok(()),
    }
}

/// The version stored in the database; 0 without an outbox. An error for a version that this
/// release does not know.
pub(super) async fn version(connection: &mut PgConnection) -> Result<usize, OutboxError> {
    let failed = OutboxError::during("read its version");
    let stored = meta(connection, VERSION_NAME).await.map_err(&failed)?;
    version::check(stored.as_deref(), NEWEST)
}
