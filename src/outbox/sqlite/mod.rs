//! The outbox in a SQLite file.
//!
//! Owns its connections. SQLite has one writer at a time, so the order of the rows is the order of the commits without any
//! lock of ours.

mod append;
mod schema;
mod store;
#[cfg(test)]
mod tests;

pub(crate) use append::append;
pub(crate) use schema::prepare;

use super::{OutboxError, OutboxSettings, OutboxVersions};
use crate::event::{Event, EventType, OutgoingRecord};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A relay needs one at a time; `publish` needs none.
const CONNECTIONS_MAX: u32 = 2;

/// An outbox in a SQLite file. Cheap to clone.
#[derive(Clone)]
pub struct SqliteOutbox {
    pool: SqlitePool,
    settings: OutboxSettings,
    committed: Arc<Notify>,
}

impl SqliteOutbox {
    /// Opens or creates the file, and creates the outbox's tables in it or brings them up to date. It may be the file of a
    /// [`SqliteInbox`](crate::inbox::SqliteInbox).
    ///
    /// # Errors
    /// When the file cannot be opened or written, or its outbox is of a newer version.
    pub async fn open(path: &Path) -> Result<Self, OutboxError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // SQLite's own waiting favours whoever had the lock last.
            .busy_timeout(Duration::ZERO);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy_with(options);
        let outbox = Self {
            pool,
            settings: OutboxSettings::default(),
            committed: Arc::default(),
        };
        outbox.prepare().await?;
        Ok(outbox)
    }

    async fn prepare(&self) -> Result<(), OutboxError> {
        let mut transaction = self.begin("open").await?;
        prepare(&mut transaction).await?;
        transaction
            .commit()
            .await
            .map_err(OutboxError::during("open"))
    }

    /// The versions of the outbox in this file; does not create it.
    pub(super) async fn versions(path: &Path) -> Result<OutboxVersions, OutboxError> {
        let newest = schema::NEWEST;
        if !path.exists() {
            return Ok(OutboxVersions { stored: 0, newest });
        }
        let failed = OutboxError::during("open");
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut connection = options.connect().await.map_err(&failed)?;
        let stored = schema::version(&mut connection).await?;
        connection.close().await.map_err(&failed)?;
        Ok(OutboxVersions { stored, newest })
    }

    /// The same with other settings.
    pub fn with_settings(mut self, settings: OutboxSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The file.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.pool.connect_options().get_filename().to_owned()
    }

    /// Wakes this process's relays: call it after a commit, so that they need not find out by polling.
    pub fn wake(&self) {
        self.committed.notify_waiters();
    }

    /// Publishes an event with the transaction in which `connection` is: once that commits, a relay takes the event to Kafka;
    /// if it rolls back, the event was never there. Outside of a transaction the event is published at once.
    ///
    /// Begin such a transaction with `BEGIN IMMEDIATE`: one that first reads and then writes fails when another process
    /// has written in between. Events of one key are published in the order in which their transactions commit.
    ///
    /// # Errors
    /// [`OutboxError::Event`] for an event that does not follow its schema; otherwise what SQLite says.
    pub async fn publish<T: EventType>(
        &self,
        connection: &mut SqliteConnection,
        event: &Event<T>,
    ) -> Result<(), OutboxError> {
        let record = self.settings.encode(event)?;
        append(connection, &[record]).await
    }

    /// [`SqliteOutbox::publish`] for several events of one type, in this order.
    ///
    /// # Errors
    /// As for [`SqliteOutbox::publish`].
    pub async fn publish_all<T: EventType>(
        &self,
        connection: &mut SqliteConnection,
        events: &[Event<T>],
    ) -> Result<(), OutboxError> {
        let records: Result<Vec<_>, _> = events.iter().map(|e| self.settings.encode(e)).collect();
        append(connection, &records?).await
    }

    /// [`SqliteOutbox::publish`] for records that are encoded already, of any types and topics.
    ///
    /// # Errors
    /// As for [`SqliteOutbox::publish`].
    pub async fn publish_records(
        &self,
        connection: &mut SqliteConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        append(connection, records).await
    }
}
