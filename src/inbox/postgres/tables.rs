//! The store's tables: creates and upgrades them, and checks their version.
//!
//! Knows no statement of a delivery; `statements.rs` has those.

use super::settings::PostgresSettings;
use crate::postgres::{META, Migration, lock_schema, meta, set_meta};
use sqlx::{AssertSqlSafe, PgConnection};

/// The version of the tables below. A store with a newer version is refused, an older one is
/// upgraded.
pub(super) const VERSION: u32 = 4;

/// A row marks its delivery as completed: it is inserted when the delivery is claimed, and becomes
/// visible to others once the transaction of the claim is committed. The digest is the key, because
/// ids may be longer than an index allows; the text columns beside it are for people.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS evenkeel_inbox (
        digest bytea PRIMARY KEY,
        consumer_group text NOT NULL,
        handler text NOT NULL,
        source text NOT NULL,
        id text NOT NULL,
        replies bytea,
        completed_at timestamptz NOT NULL DEFAULT now(),
        content bytea
    );
    ALTER TABLE evenkeel_inbox ADD COLUMN IF NOT EXISTS content bytea;
    CREATE INDEX IF NOT EXISTS evenkeel_inbox_completed_at ON evenkeel_inbox (completed_at);
";

/// Why a store cannot be used.
pub(super) enum Problem {
    /// It has another version; with the remedy.
    Foreign(String),
    /// PostgreSQL failed.
    Postgres(sqlx::Error),
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::Postgres(error)
    }
}

/// Checks the version of the store before anything is changed, then creates the missing tables, if
/// the settings allow it.
pub(super) async fn migrate(
    connection: &mut PgConnection,
    settings: &PostgresSettings,
) -> Result<(), Problem> {
    lock_schema(connection).await?;
    let version = version(connection).await?;
    check_version(version.as_deref(), settings.migration)?;
    if settings.migration == Migration::Elsewhere {
        return Ok(());
    }
    // The service's DDL first: it may take long, and the inbox's tables are locked from their first
    // change.
    sqlx::raw_sql(AssertSqlSafe(settings.schema.as_str()))
        .execute(&mut *connection)
        .await?;
    if version.as_deref() == Some(VERSION.to_string().as_str()) {
        return Ok(());
    }
    let tables = sqlx::raw_sql(AssertSqlSafe(migration()));
    tables.execute(connection).await?;
    Ok(())
}

/// The SQL that creates the tables, or upgrades them from any earlier version.
pub(super) fn migration() -> String {
    format!("{META}{TABLES}{}", set_meta("version", VERSION))
}

/// The stored version of the tables, as text; `None` without tables.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    meta(connection, "version").await
}

/// Refuses a newer version, and text that is no version. Refuses older or missing tables if they
/// are made elsewhere.
fn check_version(stored: Option<&str>, migration: Migration) -> Result<(), Problem> {
    let foreign = |reason: String| Err(Problem::Foreign(reason));
    let migrate = "run `evenkeel store migrate --execute` first, or let the service upgrade it";
    match (stored.map(str::parse::<u32>), migration) {
        (None, Migration::OnOpen) => Ok(()),
        (None, Migration::Elsewhere) => foreign(format!("has no tables of evenkeel: {migrate}")),
        (Some(Ok(version)), _) if version > VERSION => foreign(format!(
            "has version {version}, written by a newer release; this one knows versions up to \
             {VERSION}: run the newer release, or give this one a database of its own"
        )),
        (Some(Ok(version)), Migration::Elsewhere) if version < VERSION => foreign(format!(
            "has version {version}, and this release needs {VERSION}: {migrate}"
        )),
        (Some(Ok(_)), _) => Ok(()),
        (Some(Err(_)), _) => foreign(
            "has a version that no release of evenkeel writes: give the service a database of its \
             own"
            .to_owned(),
        ),
    }
}
