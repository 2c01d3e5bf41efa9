//! Settings of an outbox in PostgreSQL.

use crate::postgres::{Migration, PoolSettings};
use std::time::Duration;

/// Settings of an outbox in PostgreSQL, named like those of the inbox.
/// `PostgresOutboxSettings::default()` has the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`migration`](Self::migration) | on open | who creates the tables |
/// | [`connections`](Self::connections) | 4 | connections of the outbox's own pool |
/// | [`pgbouncer`](Self::pgbouncer) | false | – |
///
/// # Examples
/// ```
/// use evenkeel::outbox::PostgresOutboxSettings;
/// use evenkeel::postgres::Migration;
///
/// let settings = PostgresOutboxSettings::default()
///     .with_migration(Migration::Elsewhere)
///     .with_connections(2);
/// assert!(!settings.pgbouncer);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct PostgresOutboxSettings {
    /// Who creates and upgrades the tables. Default: the process that opens the outbox.
    pub migration: Migration,
    /// Bounds the connections of the outbox's own pool. Default 4, at least 1. A relay needs one at
    /// a time, and one more to listen; `publish` needs none. At the bound a caller waits for 5 s
    /// and then fails. Has no effect on a pool of the service.
    pub connections: u32,
    /// Whether a pooler assigns server connections per transaction (PgBouncer's
    /// `pool_mode=transaction`). Default false; `?pgbouncer=true` in the URL has the same effect.
    /// Such a pooler forwards no notifications, so relays find commits of other processes by
    /// polling, every 200 ms by default.
    pub pgbouncer: bool,
}

/// Bounds the wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

impl Default for PostgresOutboxSettings {
    fn default() -> Self {
        Self {
            migration: Migration::default(),
            connections: 4,
            pgbouncer: false,
        }
    }
}

impl PostgresOutboxSettings {
    /// Sets who creates and upgrades the tables.
    pub fn with_migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
        self
    }

    /// Sets the maximum number of connections; at least 1.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets whether a pooler assigns server connections per transaction.
    pub fn with_pgbouncer(mut self, pgbouncer: bool) -> Self {
        self.pgbouncer = pgbouncer;
        self
    }

    /// The settings of the pool that the outbox opens. No handler uses it, so its sessions need no
    /// reset.
    pub(super) fn pool(&self) -> PoolSettings {
        PoolSettings {
            connections: self.connections.max(1),
            acquire_timeout: CONNECT_WITHIN,
            is_pooled: self.pgbouncer,
            resets: false,
        }
    }
}
