//! The outbox in PostgreSQL.
//!
//! Owns its connections. Two transactions that publish on one key wait for each other (a lock by the key's hash, to the end of
//! the transaction), so that the order of the rows is the order of the commits.

mod append;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod wake_up;

pub(crate) use append::append;
pub(crate) use schema::{lock_schema, prepare};

use super::{OutboxError, OutboxSettings, OutboxVersions};
use crate::event::{Event, EventType, OutgoingRecord};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use wake_up::WakeUp;

/// A relay needs one at a time, and one that listens beside the pool; `publish` needs none.
const CONNECTIONS_MAX: u32 = 4;

/// How long a connection is waited for.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// An outbox in PostgreSQL. Cheap to clone.
#[derive(Clone)]
pub struct PostgresOutbox {
    pool: PgPool,
    settings: OutboxSettings,
    wake_up: Arc<WakeUp>,
}

impl PostgresOutbox {
    /// Connects to the database of this URL, and creates the outbox's tables or brings them up to date.
    ///
    /// # Errors
    /// When the database cannot be reached, or its outbox is of a newer version.
    pub async fn open(url: &str) -> Result<Self, OutboxError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(OutboxError::during("read the address"))?
            .application_name("evenkeel");
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(CONNECT_WITHIN)
            .connect_lazy_with(options);
        Self::with_pool(pool).await
    }

    /// The same on a pool of the service's own, which may be as small as one connection. A relay has one more that is not the
    /// pool's, with the pool's options, on which it hears of commits.
    ///
    /// # Errors
    /// As for [`PostgresOutbox::open`].
    pub async fn with_pool(pool: PgPool) -> Result<Self, OutboxError> {
        let failed = OutboxError::during("open");
        let mut transaction = pool.begin().await.map_err(&failed)?;
        prepare(&mut transaction).await?;
        transaction.commit().await.map_err(&failed)?;
        Ok(Self {
            pool,
            settings: OutboxSettings::default(),
            wake_up: Arc::default(),
        })
    }

    /// The versions of the outbox in the database of this URL.
    pub(super) async fn versions(url: &str) -> Result<OutboxVersions, OutboxError> {
        let failed = OutboxError::during("open");
        let options = PgConnectOptions::from_str(url).map_err(&failed)?;
        let mut connection = options.connect().await.map_err(&failed)?;
        let stored = schema::version(&mut connection).await?;
        // The answer is there, and the server ends what is not closed in good order.
        let _ = connection.close().await;
        Ok(OutboxVersions {
            stored,
            newest: schema::NEWEST,
        })
    }

    /// The same with other settings.
    pub fn with_settings(mut self, settings: OutboxSettings) -> Self {
        self.settings = settings;
        self
    }

    /// A pool of connections to the database.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Wakes relays, of other processes too: call it after a commit. Without it they hear of commits that follow soon after
    /// [`PostgresOutbox::publish`], and find others by polling.
    pub fn wake(&self) {
        self.wake_up.tell(&self.pool);
    }

    /// Publishes an event with the transaction in which `connection` is: once that commits, a relay takes the event to Kafka;
    /// if it rolls back, the event was never there. Outside of a transaction the event is published at once.
    ///
    /// Events of one key are published in the order in which their transactions commit. The price: a transaction that
    /// publishes on a key waits until every other one that did so has ended. Two that publish on the same keys in different
    /// orders can wait for each other; PostgreSQL then ends one of them (`40P01`), which is to be tried again. Publish what
    /// belongs together by [`PostgresOutbox::publish_all`], which goes by one order.
    ///
    /// # Errors
    /// [`OutboxError::Event`] for an event that does not follow its schema; otherwise what the database says, and then the
    /// transaction can only be rolled back.
    pub async fn publish<T: EventType>(
        &self,
        connection: &mut PgConnection,
        event: &Event<T>,
    ) -> Result<(), OutboxError> {
        let record = self.settings.encode(event)?;
        self.append(connection, &[record]).await
    }

    /// [`PostgresOutbox::publish`] for several events of one type, in this order, in one round trip.
    ///
    /// # Errors
    /// As for [`PostgresOutbox::publish`]; none of them is written.
    pub async fn publish_all<T: EventType>(
        &self,
        connection: &mut PgConnection,
        events: &[Event<T>],
    ) -> Result<(), OutboxError> {
        let records: Result<Vec<_>, _> = events.iter().map(|e| self.settings.encode(e)).collect();
        self.append(connection, &records?).await
    }

    /// [`PostgresOutbox::publish`] for records that are encoded already, of any types and topics.
    ///
    /// # Errors
    /// As for [`PostgresOutbox::publish`].
    pub async fn publish_records(
        &self,
        connection: &mut PgConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        self.append(connection, records).await
    }

    async fn append(
        &self,
        connection: &mut PgConnection,
        records: &[OutgoingRecord],
    ) -> Result<(), OutboxError> {
        append(connection, records).await?;
        self.wake_up.expect(&self.pool);
        Ok(())
    }
}
