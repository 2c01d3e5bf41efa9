//! Read access to the completed deliveries of a SQLite store, for its own service or for another
//! program.
//!
//! The reading connections are read-only and never hold a lock that a writer waits for: with a WAL,
//! readers and the writer do not block each other.

use super::{SqliteInbox, error, statements, tables};
use crate::inbox::completions::completion::Opening;
use crate::inbox::{BoxFuture, Completion, Completions, InboxError, InboxKey};
use crate::sqlite::path_in;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Opens the store at an address of a SQLite file.
pub(in crate::inbox) fn open_for_reading<'a>(
    address: &'a str,
    group: &'a str,
) -> Option<Opening<'a>> {
    Some(Box::pin(reader_at(path_in(address)?, group)))
}

async fn reader_at(path: &Path, group: &str) -> Result<Arc<dyn Completions>, InboxError> {
    Ok(Arc::new(SqliteCompletions::open(path, group).await?))
}

/// How long a read waits while the whole file is locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Read access to a SQLite store: it creates, upgrades and writes nothing. Cheap to clone; clones
/// share the connections.
///
/// # Examples
/// ```no_run
/// use evenkeel::inbox::{Completions, SqliteCompletions};
/// use std::path::Path;
///
/// # async fn example() -> Result<(), evenkeel::inbox::InboxError> {
/// let store = SqliteCompletions::open(Path::new("mailer.db"), "mailer").await?;
/// let has_any = store.has_group("mailer").await?;
/// println!("deliveries of the group: {has_any}");
/// store.close().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteCompletions {
    /// The path, for messages.
    path: String,
    pub(super) pool: SqlitePool,
}

impl std::fmt::Debug for SqliteCompletions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteCompletions")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl SqliteInbox {
    /// Returns read access to the completed deliveries of this store.
    pub fn completions(&self) -> SqliteCompletions {
        SqliteCompletions {
            path: self.store().path.clone(),
            pool: self.store().readers.clone(),
        }
    }
}

impl SqliteCompletions {
    /// Opens the store of `group` for reading, also while its service runs.
    ///
    /// # Errors
    /// [`InboxError::NotWritable`] if the file does not exist or cannot be opened,
    /// [`InboxError::Foreign`] if it is no store of this group, or has a version that this release
    /// does not read.
    pub async fn open(path: &Path, group: &str) -> Result<Self, InboxError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT);
        let reader = Self {
            path: path.display().to_string(),
            pool: SqlitePoolOptions::new().connect_lazy_with(options),
        };
        let checked = tables::check(&mut *reader.connection().await?, group).await;
        checked.map_err(|problem| problem.on(&reader.path, "open"))?;
        Ok(reader)
    }

    /// Closes all connections after the running reads have ended. If this handle came from
    /// [`SqliteInbox::completions`], it shares the connections of that inbox and closes its readers
    /// too.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn connection(&self) -> Result<PoolConnection<Sqlite>, InboxError> {
        let connection = self.pool.acquire().await;
        connection.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sqlx::Error) -> InboxError {
        error::failed(&self.path, "read", error)
    }
}

impl Completions for SqliteCompletions {
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let mut found = Vec::with_capacity(keys.len());
            for keys in keys.chunks(statements::KEYS_PER_QUERY_MAX) {
                let some = statements::completed(&mut connection, keys).await;
                found.extend(some.map_err(|error| self.failed(error))?);
            }
            Ok(found)
        })
    }

    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let mut has = Vec::with_capacity(handlers.len());
            for handler in handlers {
                let known = statements::has_deliveries(&mut connection, group, Some(handler)).await;
                has.push(known.map_err(|error| self.failed(error))?);
            }
            Ok(has)
        })
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let has = statements::has_deliveries(&mut connection, group, None).await;
            has.map_err(|error| self.failed(error))
        })
    }
}
