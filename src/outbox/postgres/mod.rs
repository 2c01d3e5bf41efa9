//! The outbox in PostgreSQL.
//!
//! Owns its connections. Two transactions that publish on one key wait for each other (a lock by
//! the key's hash, until the end of the transaction), so the order of the rows is the order of the
//! commits.
//!
//! `append.rs` writes rows in the caller's transaction, `store.rs` holds the statements of relays,
//! `tables.rs` the tables and their versions, and `wake_up.rs` the notifications. Row numbers come
//! from a sequence that must not cache numbers per session: a number drawn earlier would be used
//! later.

mod append;
mod settings;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod wake_up;

pub(crate) use append::append;
pub use settings::PostgresOutboxSettings;

use super::handle::Opener;
use super::store::Answer;
use super::version::OutboxVersions;
use super::{OutboxError, OutboxSettings, OutboxStore};
use crate::event::{Event, EventType, OutgoingRecord};
use crate::postgres::{Database, Migration, url_in};
use append::append_numbered;
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use wake_up::WakeUp;

/// An outbox in PostgreSQL. Cheap to clone; clones share the connections.
///
/// It writes through the caller's connection and needs none of its own for that. Its tables are in
/// the database that the caller's transactions use; several services may share them.
///
/// # Examples
/// ```no_run
/// use evenkeel::event::{Event, EventType};
/// use evenkeel::outbox::PostgresOutbox;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Paid { cents: i64 }
/// # impl EventType for Paid {
/// #     const TYPE: &'static str = "example.paid.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let outbox = PostgresOutbox::open("postgres://shop@localhost/shop").await?;
/// let mut transaction = outbox.pool().begin().await?;
/// // Writes of the service use the same transaction.
/// let paid = Event::new("/shop/web", Paid { cents: 100 });
/// outbox.publish(&mut transaction, &paid).await?;
/// transaction.commit().await?;
/// outbox.wake();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresOutbox {
    database: Database,
    settings: OutboxSettings,
    wake_up: Arc<WakeUp>,
}

impl std::fmt::Debug for PostgresOutbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresOutbox")
            .field("database", &self.database.name())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl From<PostgresOutbox> for OutboxStore {
    fn from(outbox: PostgresOutbox) -> Self {
        Self::of(outbox)
    }
}

/// Reaches an outbox by the URL of its database.
pub(super) const OPENER: Opener = Opener {
    open: store_at,
    open_unchanged: unchanged_at,
    versions: versions_at,
};

fn store_at(address: &str) -> Option<Answer<'_, OutboxStore>> {
    let url = url_in(address)?;
    Some(Box::pin(async move {
        PostgresOutbox::open(url).await.map(OutboxStore::from)
    }))
}

fn unchanged_at(address: &str) -> Option<Answer<'_, OutboxStore>> {
    let url = url_in(address)?;
    Some(Box::pin(async move {
        PostgresOutbox::open_unchanged(url)
            .await
            .map(OutboxStore::from)
    }))
}

fn versions_at(address: &str) -> Option<Answer<'_, OutboxVersions>> {
    Some(Box::pin(PostgresOutbox::versions(url_in(address)?)))
}

impl PostgresOutbox {
    /// Connects to the database at this URL. Creates or upgrades the outbox's tables. Use
    /// `?pgbouncer=true` in the URL for a pooler that assigns server connections per transaction.
    ///
    /// # Errors
    /// [`OutboxError::Store`] if the URL cannot be parsed, the database cannot be reached or
    /// refuses the user; [`OutboxError::Foreign`] if its outbox has a newer version, or a sequence
    /// that caches numbers or is behind the rows. No error contains the URL.
    pub async fn open(url: &str) -> Result<Self, OutboxError> {
        Self::open_with(url, &PostgresOutboxSettings::default()).await
    }

    /// Connects like [`PostgresOutbox::open`], with these settings.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::open`], and [`OutboxError::Foreign`] for older tables under
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere).
    pub async fn open_with(
        url: &str,
        settings: &PostgresOutboxSettings,
    ) -> Result<Self, OutboxError> {
        let database = Database::at(url, settings.pool());
        let database = database.map_err(OutboxError::during("parse the address"))?;
        Self::open_on(database, settings).await
    }

    /// Connects like [`PostgresOutbox::open_with`], with the driver's connect options, for options
    /// that a URL cannot express.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::open_with`].
    pub async fn connect(
        options: PgConnectOptions,
        settings: &PostgresOutboxSettings,
    ) -> Result<Self, OutboxError> {
        Self::open_on(Database::connect(options, &settings.pool()), settings).await
    }

    /// Opens the outbox on a pool of the service, which may have a single connection. A relay opens
    /// one additional connection outside of the pool, with the pool's options, on which it listens
    /// for commits.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::open`].
    pub async fn with_pool(pool: PgPool) -> Result<Self, OutboxError> {
        Self::with_pool_and_settings(pool, &PostgresOutboxSettings::default()).await
    }

    /// Opens the outbox like [`PostgresOutbox::with_pool`], with these settings. Behind a pooler
    /// that assigns server connections per transaction, the pool's options need
    /// `statement_cache_capacity(0)`.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::open_with`].
    pub async fn with_pool_and_settings(
        pool: PgPool,
        settings: &PostgresOutboxSettings,
    ) -> Result<Self, OutboxError> {
        let database = Database::of(pool, settings.pgbouncer);
        let database = database.map_err(OutboxError::during("check the pool"))?;
        Self::open_on(database, settings).await
    }

    async fn open_on(
        database: Database,
        settings: &PostgresOutboxSettings,
    ) -> Result<Self, OutboxError> {
        let failed = OutboxError::during("open");
        let mut transaction = database.begin("").await.map_err(&failed)?;
        tables::prepare(&mut transaction, settings.migration).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(Self {
            database,
            settings: OutboxSettings::default(),
            wake_up: Arc::default(),
        })
    }

    /// Connects like [`PostgresOutbox::open`], for a reader: refuses tables of another version and
    /// changes nothing.
    async fn open_unchanged(url: &str) -> Result<Self, OutboxError> {
        let settings = PostgresOutboxSettings::default().with_migration(Migration::Elsewhere);
        Self::open_with(url, &settings).await
    }

    /// The versions of the outbox in the database at this URL.
    async fn versions(url: &str) -> Result<OutboxVersions, OutboxError> {
        let failed = OutboxError::during("open");
        let database = Database::at(url, PostgresOutboxSettings::default().pool());
        let database = database.map_err(&failed)?;
        let mut session = database.session().await.map_err(&failed)?;
        let stored = tables::version(&mut session).await?;
        drop(session);
        database.pool().close().await;
        Ok(OutboxVersions {
            stored,
            newest: tables::NEWEST,
        })
    }

    /// The SQL that upgrades the outbox's tables from the version `from` (0 for none) to the newest
    /// one, for teams that run migrations themselves; see
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere). Run it in one transaction.
    ///
    /// # Examples
    /// ```
    /// use evenkeel::outbox::PostgresOutbox;
    ///
    /// assert!(PostgresOutbox::migration_sql(0).contains("CREATE TABLE evenkeel_outbox"));
    /// ```
    pub fn migration_sql(from: usize) -> String {
        tables::migration(from)
    }

    /// Sets how events are encoded and validated. Concerns this handle and its later clones.
    #[must_use]
    pub fn with_settings(mut self, settings: OutboxSettings) -> Self {
        self.settings = settings;
        self
    }

    /// A pool of connections to the database: the pool of the service, or evenkeel's own, which
    /// then has [`PostgresOutboxSettings::connections`].
    pub fn pool(&self) -> &PgPool {
        self.database.pool()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Wakes the relays, including those of other processes: call it after a commit. Without it
    /// relays are notified of a commit that follows within 50 ms of [`PostgresOutbox::publish`],
    /// and find other commits by polling. Does not block: a task notifies, at most every 10 ms for
    /// all callers.
    ///
    /// # Panics
    /// Outside of a runtime of tokio.
    pub fn wake(&self) {
        self.wake_up.notify_committed(&self.database);
    }

    /// Publishes an event in the transaction of `connection`: after its commit a relay publishes
    /// the event to Kafka; after a rollback the event does not exist. Outside of a transaction the
    /// event is published at once.
    ///
    /// Events of one key are published in the order in which their transactions commit. For that, a
    /// transaction that publishes on a key waits until every other transaction that published on it
    /// has ended. Two transactions that publish on the same keys in different orders can wait for
    /// each other; PostgreSQL then ends one of them (`40P01`), which must be repeated. Publish
    /// events that belong together with [`PostgresOutbox::publish_all`], which takes all locks in
    /// one fixed order.
    ///
    /// # Errors
    /// [`OutboxError::Event`] for an event that does not follow its schema. Otherwise the
    /// database's error; the transaction can then only be rolled back.
    pub async fn publish<T: EventType>(
        &self,
        connection: &mut PgConnection,
        event: &Event<T>,
    ) -> Result<(), OutboxError> {
        let record = self.settings.encode(event)?;
        self.append(connection, &[record]).await
    }

    /// Publishes several events of one type like [`PostgresOutbox::publish`], in this order, in one
    /// round trip. It takes the locks of all keys in one fixed order, so two such calls cannot wait
    /// for each other.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::publish`]; none of the events is written.
    ///
    /// # Examples
    /// ```no_run
    /// # use evenkeel::event::{Event, EventType};
    /// # use evenkeel::outbox::{OutboxError, PostgresOutbox};
    /// # use evenkeel::sqlx::PgConnection;
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Paid { cents: i64 }
    /// # impl EventType for Paid {
    /// #     const TYPE: &'static str = "example.paid.v1";
    /// #     const TOPIC: &'static str = "example.payments";
    /// #     fn key(&self) -> String { String::new() }
    /// # }
    /// # async fn example(
    /// #     outbox: PostgresOutbox,
    /// #     tx: &mut PgConnection,
    /// # ) -> Result<(), OutboxError> {
    /// let paid = [100, 250].map(|cents| Event::new("/shop/web", Paid { cents }));
    /// outbox.publish_all(tx, &paid).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn publish_all<T: EventType>(
        &self,
        connection: &mut PgConnection,
        events: &[Event<T>],
    ) -> Result<(), OutboxError> {
        let records: Result<Vec<_>, _> = events.iter().map(|e| self.settings.encode(e)).collect();
        self.append(connection, &records?).await
    }

    /// Publishes records that are already encoded, of any types and topics, like
    /// [`PostgresOutbox::publish`].
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::publish`].
    pub async fn publish_records(
        &self,
        connection: &mut PgConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        self.append(connection, records).await
    }

    /// Publishes records like [`PostgresOutbox::publish_records`], and returns the numbers of their
    /// rows, in this order. A row exists, with the id of its event, until the brokers have
    /// acknowledged it: a service can look up by its number whether an event still waits.
    ///
    /// # Errors
    /// The errors of [`PostgresOutbox::publish`].
    pub async fn publish_records_numbered(
        &self,
        connection: &mut PgConnection,
        records: &[OutgoingRecord],
    ) -> Result<Vec<i64>, OutboxError> {
        let is_prepared = !self.database.is_pooled();
        let numbers = append_numbered(connection, records, is_prepared).await?;
        self.wake_up.notify_written(&self.database);
        Ok(numbers)
    }

    async fn append(
        &self,
        connection: &mut PgConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        append(connection, records, !self.database.is_pooled()).await?;
        self.wake_up.notify_written(&self.database);
        Ok(())
    }
}
