//! Creates the gateway's tables.

use super::super::error::StoreError;
use evenkeel::postgres::Migration;
use sqlx::PgConnection;

/// The advisory lock of the gateway's tables; its bytes spell a name. `CREATE TABLE IF NOT EXISTS`
/// fails if two run at once.
const SCHEMA_LOCK: i64 = 0x6561_7465_7761_7973;

/// The gateway's tables. The order of the second key's columns serves the search by id too.
pub(super) const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS gateway_requests (
        principal text NOT NULL,
        key text NOT NULL,
        fingerprint bytea NOT NULL,
        status integer NOT NULL,
        headers text NOT NULL,
        body bytea NOT NULL,
        accepted_ms bigint NOT NULL,
        PRIMARY KEY (principal, key)
    );
    CREATE INDEX IF NOT EXISTS gateway_requests_accepted ON gateway_requests (accepted_ms);
    CREATE TABLE IF NOT EXISTS gateway_events (
        id text NOT NULL,
        source text NOT NULL,
        fingerprint bytea NOT NULL,
        type text NOT NULL,
        topic text NOT NULL,
        key bytea,
        accepted_ms bigint NOT NULL,
        outbox_sequence bigint NOT NULL,
        PRIMARY KEY (id, source)
    );
    CREATE INDEX IF NOT EXISTS gateway_events_accepted ON gateway_events (accepted_ms);
";

const EXIST: &str = "
    SELECT to_regclass('gateway_requests') IS NOT NULL
       AND to_regclass('gateway_events') IS NOT NULL";

/// Creates missing tables, if the settings allow it, in the transaction of `connection`.
///
/// # Errors
/// [`StoreError::NoTables`] if they are missing and created elsewhere.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    migration: Migration,
) -> Result<(), StoreError> {
    let failed = StoreError::during("prepare its tables");
    let exist: bool = sqlx::query_scalar(EXIST)
        .fetch_one(&mut *connection)
        .await
        .map_err(&failed)?;
    if exist {
        return Ok(());
    }
    if migration == Migration::Elsewhere {
        return Err(StoreError::NoTables);
    }
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK);
    lock.execute(&mut *connection).await.map_err(&failed)?;
    let create = sqlx::raw_sql(TABLES).execute(connection).await;
    create.map(drop).map_err(&failed)
}
