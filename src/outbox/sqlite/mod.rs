//! The outbox in a SQLite file.
//!
//! Owns its connections. SQLite has one writer at a time, so the order of the rows is the order of the commits without any
//! lock of ours.

mod append;
mod schema;

pub(crate) use append::append;
pub(crate) use schema::prepare;

use super::{OutboxError, OutboxSettings};
use crate::event::{Event, EventType, OutgoingRecord};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{SqliteConnection, SqlitePool};
use std::path::Path;
use std::time::Duration;

/// A relay needs one at a time; `publish` needs none.
const CONNECTIONS_MAX: u32 = 2;

/// How long SQLite's write lock is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// An outbox in a SQLite file. Cheap to clone.
#[derive(Clone)]
pub struct SqliteOutbox {
    pool: SqlitePool,
    settings: OutboxSettings,
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
            .busy_timeout(LOCK_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .connect_lazy_with(options);
        let failed = OutboxError::during("open");
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        prepare(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(Self {
            pool,
            settings: OutboxSettings::default(),
        })
    }

    /// The same with other settings.
    pub fn with_settings(mut self, settings: OutboxSettings) -> Self {
        self.settings = settings;
        self
    }

    /// A pool of connections to the file, with a timeout for its write lock.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
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
