//! Settings of the store in PostgreSQL.

use super::super::settings::StoreSettings;
use evenkeel::outbox::PostgresOutboxSettings;
use evenkeel::postgres::Migration;

/// Settings of the store in PostgreSQL. `PostgresStoreSettings::default()` has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`store`](Self::store) | see [`StoreSettings`] | retention and queues |
/// | [`writers`](Self::writers) | 4 | transactions at the same time |
/// | [`migration`](Self::migration) | on open | who creates the tables |
/// | [`pgbouncer`](Self::pgbouncer) | false | – |
///
/// ```
/// use evenkeel_gateway::store::PostgresStoreSettings;
///
/// let settings = PostgresStoreSettings::default().with_writers(2);
/// assert!(!settings.pgbouncer);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct PostgresStoreSettings {
    /// Retention of identities, and bounds of the queues.
    pub store: StoreSettings,
    /// The transactions that this gateway writes at the same time. Default 4, at least 1. Requests
    /// of one caller use one of them. The store opens four connections more, for the relay and for
    /// reading.
    pub writers: u32,
    /// Who creates the tables of the outbox and of the gateway. Default: the process that opens the
    /// store, whose user needs the right to do so. The SQL for migrations of your own is
    /// [`PostgresOutbox::migration_sql`](evenkeel::outbox::PostgresOutbox::migration_sql) and
    /// [`PostgresStore::migration_sql`](super::PostgresStore::migration_sql).
    pub migration: Migration,
    /// Whether a pooler assigns server connections per transaction (PgBouncer's
    /// `pool_mode=transaction`). Default false; `?pgbouncer=true` in the URL has the same effect.
    pub pgbouncer: bool,
}

/// Connections beside those of the writers.
const OTHER_CONNECTIONS: u32 = 4;

impl Default for PostgresStoreSettings {
    fn default() -> Self {
        Self {
            store: StoreSettings::default(),
            writers: 4,
            migration: Migration::default(),
            pgbouncer: false,
        }
    }
}

impl From<&StoreSettings> for PostgresStoreSettings {
    /// These settings, and the defaults for the rest.
    fn from(settings: &StoreSettings) -> Self {
        Self::default().with_store(settings.clone())
    }
}

impl PostgresStoreSettings {
    /// Sets the retention of identities, and the bounds of the queues.
    pub fn with_store(mut self, store: StoreSettings) -> Self {
        self.store = store;
        self
    }

    /// Sets the number of writers; 0 counts as 1.
    pub fn with_writers(mut self, writers: u32) -> Self {
        self.writers = writers.max(1);
        self
    }

    /// Sets who creates the tables.
    pub fn with_migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
        self
    }

    /// Sets whether a pooler assigns server connections per transaction.
    pub fn with_pgbouncer(mut self, pgbouncer: bool) -> Self {
        self.pgbouncer = pgbouncer;
        self
    }

    /// The settings of the outbox, whose connections the store uses.
    pub(super) fn outbox(&self) -> PostgresOutboxSettings {
        PostgresOutboxSettings::default()
            .with_migration(self.migration)
            .with_pgbouncer(self.pgbouncer)
            .with_connections(self.writers.max(1).saturating_add(OTHER_CONNECTIONS))
    }
}
