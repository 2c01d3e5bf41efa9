//! Settings of an inbox in PostgreSQL.

use crate::postgres::Migration;
use std::time::Duration;

/// Below the 64 subtransactions that PostgreSQL keeps in memory for each transaction, to leave a
/// few for the handler.
const SAVEPOINTS_MAX: u32 = 60;

/// Settings of an inbox in PostgreSQL. [`PostgresSettings::new`] sets the defaults.
///
/// | setting | default | bounds |
/// |---|---|---|
/// | [`connections`](Self::connections) | 4 | transactions at a time |
/// | [`lock_timeout`](Self::lock_timeout) | 10 s | waits for a connection or a lock |
/// | [`group_max`](Self::group_max) | 60 | deliveries per transaction |
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresSettings {
    /// The service's own DDL. It must be idempotent (`CREATE TABLE IF NOT EXISTS …`), because it
    /// runs at every start, in the transaction that upgrades the inbox's tables.
    pub schema: String,
    /// Who creates and upgrades the tables. Default: the process that opens the store.
    pub migration: Migration,
    /// Bounds the transactions that are open at a time; ready deliveries are spread over them.
    /// Default 4, at least 1. Use more for handlers that wait long for the database; fewer make
    /// larger groups. If handlers share rows and the transactions collide, one at a time is open
    /// whatever this value is. Two additional connections serve work other than deliveries.
    pub connections: u32,
    /// Bounds how long a claim waits for a connection, and a statement for another transaction's
    /// lock. Default 10 s. At the bound the claim fails as unavailable, which is an outage. Beside
    /// other groups a handler's statement waits less, and its delivery is then handled again.
    pub lock_timeout: Duration,
    /// Bounds the deliveries of one transaction. Default 60, at most 2,000; 1 gives each delivery
    /// its own transaction. Batches only claims that are already queued; never delays a claim. Each
    /// delivery that writes is a subtransaction, and PostgreSQL keeps 64 of them in memory per
    /// transaction: with more, every query of the server and of its replicas becomes slower while
    /// the transaction is open.
    pub group_max: u32,
    /// Whether a pooler assigns server connections per transaction (PgBouncer's
    /// `pool_mode=transaction`). Default false; `?pgbouncer=true` in the store's URL has the same
    /// effect. Every statement is then part of a transaction, and no statement stays prepared,
    /// which costs a few round trips. A service's own statements beside its handlers need
    /// transactions too, and `persistent(false)` if the pooler does not track prepared statements
    /// (PgBouncer before 1.21).
    pub pgbouncer: bool,
    /// Whether session settings of a handler (`SET`, `SET LOCAL`, `set_config`, `SET ROLE`) are
    /// reset before the next delivery uses the connection. Default (`None`): yes on connections
    /// that evenkeel opens, and no on a pool of the service
    /// ([`PostgresInbox::with_pool`](super::PostgresInbox::with_pool)), because a reset also
    /// discards settings made by the pool's `after_connect`. Settings in its connect options
    /// (`PgConnectOptions::options`) survive a reset.
    pub reset_session: Option<bool>,
}

impl PostgresSettings {
    /// Creates the settings of a service with its DDL; all others have their defaults.
    pub fn new(schema: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            migration: Migration::default(),
            connections: 4,
            lock_timeout: Duration::from_secs(10),
            group_max: SAVEPOINTS_MAX,
            pgbouncer: false,
            reset_session: None,
        }
    }

    /// Sets who creates and upgrades the tables.
    pub fn with_migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
        self
    }

    /// Sets the number of concurrent transactions; at least 1.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets the lock timeout.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets the maximum of deliveries per transaction.
    pub fn with_group_max(mut self, group_max: u32) -> Self {
        self.group_max = group_max;
        self
    }

    /// Sets whether a pooler assigns server connections per transaction.
    pub fn with_pgbouncer(mut self, pgbouncer: bool) -> Self {
        self.pgbouncer = pgbouncer;
        self
    }

    /// Sets whether session settings of a handler are reset before the next delivery.
    pub fn with_reset_session(mut self, reset_session: bool) -> Self {
        self.reset_session = Some(reset_session);
        self
    }
}
