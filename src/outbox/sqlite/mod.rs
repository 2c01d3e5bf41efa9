//! The outbox in a SQLite file.
//!
//! Owns its connections. SQLite has one writer at a time, so the order of the rows is the order of
//! the commits without an additional lock.
//!
//! `append.rs` writes rows in the caller's transaction, `store.rs` answers relays, with the SQL of
//! `statements.rs`, and `tables.rs` has the tables and their versions. Relays of this process are
//! woken by a `Notify`; those of other processes poll.

mod append;
mod statements;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use crate::sqlite::SqliteFileWatch;
pub(crate) use append::append;
pub(crate) use tables::prepare;

use super::handle::Opener;
use super::store::Answer;
use super::version::{self, OutboxVersions};
use super::{OutboxError, OutboxSettings, OutboxStore};
use crate::event::{Event, EventType, OutgoingRecord};
use crate::sqlite::{for_writing, path_in};
use append::append_numbered;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, SqliteConnection, SqlitePool};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// A relay needs one at a time; `publish` needs none.
const CONNECTIONS_MAX: u32 = 2;

/// An outbox in a SQLite file. Cheap to clone; clones share the connections.
///
/// It writes through the caller's connection and needs none of its own for that. In SQLite a
/// writing transaction locks the whole file, so keep it short: relays and other writers wait for
/// it. A [`SqliteFileWatch`] notices on that connection that the file was deleted or replaced.
///
/// The caller's connection decides whether an event survives a power failure (`synchronous`). The
/// outbox's own connections do not wait for the disk: a power failure may take back their last
/// deletions, and these events are published again.
///
/// # Examples
/// For the events that handlers publish, beside an inbox:
/// ```no_run
/// use evenkeel::inbox::SqliteInbox;
/// use evenkeel::outbox::SqliteOutbox;
/// use std::path::Path;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let file = Path::new("orders.db");
/// let outbox = SqliteOutbox::open(file).await?;
/// // Events that handlers publish commit with the inbox row.
/// let inbox = SqliteInbox::open(file, "orders", "").await?.with_outbox(outbox.clone())?;
/// # let _ = inbox;
/// # Ok(())
/// # }
/// ```
///
/// In a transaction of your own:
/// ```no_run
/// # use evenkeel::event::{Event, EventType};
/// # use evenkeel::outbox::SqliteOutbox;
/// # use evenkeel::sqlx::SqlitePool;
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Paid { cents: i64 }
/// # impl EventType for Paid {
/// #     const TYPE: &'static str = "example.paid.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// # async fn example(
/// #     pool: SqlitePool,
/// #     outbox: SqliteOutbox,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
/// let paid = Event::new("/shop/web", Paid { cents: 100 });
/// outbox.publish(&mut transaction, &paid).await?;
/// transaction.commit().await?;
/// outbox.wake();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SqliteOutbox {
    pool: SqlitePool,
    settings: OutboxSettings,
    committed: Arc<Notify>,
}

impl std::fmt::Debug for SqliteOutbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteOutbox")
            .field("file", &self.file())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl From<SqliteOutbox> for OutboxStore {
    fn from(outbox: SqliteOutbox) -> Self {
        Self::of(outbox)
    }
}

/// Reaches an outbox by the path of its file.
pub(super) const OPENER: Opener = Opener {
    open: store_at,
    open_unchanged: unchanged_at,
    versions: versions_at,
};

fn store_at(address: &str) -> Option<Answer<'_, OutboxStore>> {
    let path = path_in(address)?;
    Some(Box::pin(async move {
        SqliteOutbox::open(path).await.map(OutboxStore::from)
    }))
}

fn unchanged_at(address: &str) -> Option<Answer<'_, OutboxStore>> {
    let path = path_in(address)?;
    Some(Box::pin(async move {
        SqliteOutbox::open_unchanged(path)
            .await
            .map(OutboxStore::from)
    }))
}

fn versions_at(address: &str) -> Option<Answer<'_, OutboxVersions>> {
    Some(Box::pin(SqliteOutbox::versions(path_in(address)?)))
}

impl SqliteOutbox {
    /// Opens or creates the file. Creates or upgrades the outbox's tables in it. It may be the file
    /// of a [`SqliteInbox`](crate::inbox::SqliteInbox). Waits up to 10 s for the write lock.
    ///
    /// # Errors
    /// [`OutboxError::Store`] if the file cannot be opened or written, or stays locked;
    /// [`OutboxError::Foreign`] if its outbox has a newer version.
    pub async fn open(path: &Path) -> Result<Self, OutboxError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let outbox = Self::with_options(options);
        outbox.prepare().await?;
        Ok(outbox)
    }

    /// Opens an existing file, for a reader: refuses tables of another version, writes nothing.
    async fn open_unchanged(path: &Path) -> Result<Self, OutboxError> {
        let OutboxVersions { stored, newest } = Self::versions(path).await?;
        if stored < newest {
            return Err(version::behind(stored, newest));
        }
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        Ok(Self::with_options(options))
    }

    /// The outbox without a connection yet. SQLite's own waiting for the write lock is off: it
    /// favours the last owner of the lock. No event is written on these connections, only what a
    /// relay can repeat: each wait for the disk would delay the writers, who need the same lock.
    fn with_options(options: SqliteConnectOptions) -> Self {
        let options = for_writing(options)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::ZERO);
        let pool = SqlitePoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            // A file has no connection that could break.
            .test_before_acquire(false)
            .connect_lazy_with(options);
        Self {
            pool,
            settings: OutboxSettings::default(),
            committed: Arc::default(),
        }
    }

    /// Creates or upgrades the tables, in one transaction.
    async fn prepare(&self) -> Result<(), OutboxError> {
        let mut transaction = self.begin("open").await?;
        prepare(&mut transaction).await?;
        transaction
            .commit()
            .await
            .map_err(OutboxError::during("open"))
    }

    /// The versions of the outbox in this file. Does not create the file.
    async fn versions(path: &Path) -> Result<OutboxVersions, OutboxError> {
        let newest = tables::NEWEST;
        if !path.exists() {
            return Ok(OutboxVersions { stored: 0, newest });
        }
        let failed = OutboxError::during("open");
        let options = SqliteConnectOptions::new().filename(path).read_only(true);
        let mut connection = options.connect().await.map_err(&failed)?;
        let stored = tables::version(&mut connection).await?;
        connection.close().await.map_err(&failed)?;
        Ok(OutboxVersions { stored, newest })
    }

    /// Sets how events are encoded and validated. Concerns this handle and its later clones.
    #[must_use]
    pub fn with_settings(mut self, settings: OutboxSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The path of the file.
    pub(crate) fn file(&self) -> std::path::PathBuf {
        self.pool.connect_options().get_filename().to_owned()
    }

    /// Wakes this process's relays: call it after a commit. Without it, and in other processes,
    /// relays find the commit by polling. Never blocks.
    pub fn wake(&self) {
        self.committed.notify_waiters();
    }

    /// Publishes an event in the transaction of `connection`: after its commit a relay publishes
    /// the event to Kafka; after a rollback the event does not exist. Outside of a transaction the
    /// event is published at once.
    ///
    /// Begin such a transaction with `BEGIN IMMEDIATE`: a transaction that first reads and then
    /// writes fails if another process wrote in between. Events of one key are published in the
    /// order in which their transactions commit.
    ///
    /// # Errors
    /// [`OutboxError::Event`] for an event that does not follow its schema, otherwise SQLite's
    /// error.
    pub async fn publish<T: EventType>(
        &self,
        connection: &mut SqliteConnection,
        event: &Event<T>,
    ) -> Result<(), OutboxError> {
        let record = self.settings.encode(event)?;
        append(connection, &[record]).await
    }

    /// Publishes several events of one type like [`SqliteOutbox::publish`], in this order.
    ///
    /// # Errors
    /// The errors of [`SqliteOutbox::publish`].
    pub async fn publish_all<T: EventType>(
        &self,
        connection: &mut SqliteConnection,
        events: &[Event<T>],
    ) -> Result<(), OutboxError> {
        let records: Result<Vec<_>, _> = events.iter().map(|e| self.settings.encode(e)).collect();
        append(connection, &records?).await
    }

    /// Publishes records that are already encoded, of any types and topics, like
    /// [`SqliteOutbox::publish`].
    ///
    /// # Errors
    /// The errors of [`SqliteOutbox::publish`].
    pub async fn publish_records(
        &self,
        connection: &mut SqliteConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        append(connection, records).await
    }

    /// Publishes records like [`SqliteOutbox::publish_records`], in a transaction that has the write
    /// lock, and returns the numbers of their rows, in this order. A row exists, with the id of its
    /// event, until the brokers have acknowledged it: a service can look up by its number whether an
    /// event still waits.
    ///
    /// # Errors
    /// The errors of [`SqliteOutbox::publish`].
    pub async fn publish_records_numbered(
        &self,
        connection: &mut SqliteConnection,
        records: &[OutgoingRecord],
    ) -> Result<Vec<i64>, OutboxError> {
        append_numbered(connection, records).await
    }
}
