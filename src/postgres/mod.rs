//! PostgreSQL for inbox and outbox: addresses, pools, sessions behind a pooler, migrations, and
//! classes of errors.
//!
//! Owns how a connection is opened and returned. Knows none of their tables.
//!
//! `address.rs` parses URLs, `database.rs` opens, checks and resets connections, direct or through
//! a pooler, and `classify.rs` gives errors their class. The inbox and the outbox keep their tables
//! in one database and may share a pool; they meet in the table `evenkeel_meta`, which holds the
//! versions of both, and in the lock under which it changes.

mod address;
mod classify;
mod database;

#[cfg(test)]
mod tests;

pub(crate) use address::url_in;
pub(crate) use classify::{class_of, is_outdated_plan};
pub(crate) use database::{Database, PoolSettings, Session};

use sqlx::PgConnection;

/// Who creates and upgrades the tables of a store.
///
/// # Examples
/// ```
/// use evenkeel::inbox::PostgresSettings;
/// use evenkeel::postgres::Migration;
///
/// // The user of the service has no right to create tables.
/// let settings = PostgresSettings::new("").with_migration(Migration::Elsewhere);
/// assert_ne!(settings.migration, Migration::default());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Migration {
    /// The process that opens the store, under a lock, so that instances may start at the same
    /// time. The default. Its user needs the right to create tables. Instances of an older release
    /// keep running, but refuse the upgraded tables when they start again.
    #[default]
    OnOpen,
    /// `evenkeel store migrate --execute`, or the team's own migrations with the SQL that `evenkeel
    /// store migrate --print` prints. Opening a store then only checks the version, and does not
    /// execute the service's own DDL. Missing or older tables are refused.
    Elsewhere,
}

/// The advisory lock of evenkeel's schema; its bytes spell the name.
const SCHEMA_LOCK: i64 = 0x6576_656e_6b65_656c;

/// The table that holds the versions of evenkeel's tables in the database.
pub(crate) const META: &str = "
    CREATE TABLE IF NOT EXISTS evenkeel_meta (
        name text PRIMARY KEY,
        value text NOT NULL
    );
";

/// Waits until no other transaction creates or changes evenkeel's tables in the database, and locks
/// out others until the end of the transaction. `CREATE TABLE IF NOT EXISTS` fails if two run at
/// once, and `evenkeel_meta` belongs to both inbox and outbox.
pub(crate) async fn lock_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(SCHEMA_LOCK);
    lock.execute(connection).await.map(drop)
}

/// The value of a row of [`META`]; `None` if the row or the table does not exist.
pub(crate) async fn meta(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<String>, sqlx::Error> {
    let known = sqlx::query_scalar("SELECT to_regclass('evenkeel_meta') IS NOT NULL");
    if !known.fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

/// The statement that sets a row of [`META`], and never to a lower number: an older release that
/// starts late does not take a version back. Name and value are constants of this crate, so nothing
/// is quoted.
pub(crate) fn set_meta(name: &str, value: impl std::fmt::Display) -> String {
    format!(
        "INSERT INTO evenkeel_meta (name, value) VALUES ('{name}', '{value}')
    ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE evenkeel_meta.value::bigint < excluded.value::bigint;
"
    )
}
