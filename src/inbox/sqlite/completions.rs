//! What a SQLite store says of deliveries, asked by its own service or by somebody who only looks.

use super::{SqliteInbox, error, store};
use crate::inbox::{BoxFuture, Completion, Completions, InboxError, InboxKey};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};
use std::path::Path;
use std::time::Duration;

/// How long a look waits for whoever has the file locked as a whole.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite store that is looked at: nothing of it is created, brought up to date or written.
#[derive(Clone)]
pub struct SqliteCompletions {
    path: String,
    pub(super) pool: SqlitePool,
}

impl SqliteInbox {
    /// What this store says of deliveries.
    pub fn completions(&self) -> SqliteCompletions {
        SqliteCompletions {
            path: self.store().path.clone(),
            pool: self.store().readers.clone(),
        }
    }
}

impl SqliteCompletions {
    /// Opens the store of `group` to look at it, also while its service runs.
    ///
    /// # Errors
    /// [`InboxError::NotWritable`] where the file is not there or cannot be opened, [`InboxError::Foreign`] where it is no store
    /// of this group, or of a version that this release does not read.
    pub async fn open(path: &Path, group: &str) -> Result<Self, InboxError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT);
        let look = Self {
            path: path.display().to_string(),
            pool: SqlitePoolOptions::new().connect_lazy_with(options),
        };
        let checked = store::check(&mut *look.connection().await?, group).await;
        checked.map_err(|problem| problem.on(&look.path, "open"))?;
        Ok(look)
    }

    /// Closes all connections.
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
            let mut told = Vec::with_capacity(keys.len());
            for keys in keys.chunks(store::LOOK_MAX) {
                let some = store::completed(&mut connection, keys).await;
                told.extend(some.map_err(|error| self.failed(error))?);
            }
            Ok(told)
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
                let known = store::has(&mut connection, group, Some(handler)).await;
                has.push(known.map_err(|error| self.failed(error))?);
            }
            Ok(has)
        })
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        Box::pin(async move {
            let mut connection = self.connection().await?;
            let has = store::has(&mut connection, group, None).await;
            has.map_err(|error| self.failed(error))
        })
    }
}
