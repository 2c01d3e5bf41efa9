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
///
/// # Examples
/// ```
/// use evenkeel::inbox::PostgresSettings;
/// use std::time::Duration;
///
/// let orders = "CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY)";
/// let settings = PostgresSettings::new(orders)
///     .with_connections(8)
///     .with_lock_timeout(Duration::from_secs(5));
/// assert_eq!(settings.group_max, 60);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[must_use]
pub struct PostgresSettings {
    /// The service's own DDL. Default: none. It must be idempotent (`CREATE TABLE IF NOT EXISTS
    /// …`), because it runs at every start, in the transaction that upgrades the inbox's tables: if
    /// it fails, the store does not open. Not executed under
    /// [`Migration::Elsewhere`](crate::postgres::Migration::Elsewhere). Other instances that start
    /// wait for it, so keep long migrations elsewhere.
    pub schema: String,
    /// Who creates and upgrades the tables. Default: the process that opens the store, for which
    /// its user needs the right to create tables.
    pub migration: Migration,
    /// Bounds the transactions that are open at a time; ready deliveries are spread over them.
    /// Default 4, at least 1. At the bound claims wait in a queue and share the next transaction.
    /// Use more for handlers that wait long for the database; fewer make larger groups. If handlers
    /// share rows and the transactions collide, one at a time is open whatever this value is. Two
    /// additional connections serve work other than deliveries; count them for the server's
    /// `max_connections`.
    pub connections: u32,
    /// Bounds how long a claim waits for a connection, and a statement for another transaction's
    /// lock. Default 10 s. At the bound the claim fails as unavailable, which is an outage. Where
    /// several deliveries share a transaction and other groups may be open, a handler's statement
    /// waits at most 30 ms, and its delivery is then handled again. The server has twice this time,
    /// at least 5 s, for each answer.
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

/// The settings of a service without DDL.
impl Default for PostgresSettings {
    fn default() -> Self {
        Self::new("")
    }
}

impl PostgresSettings {
    /// Creates the settings of a service with its DDL; all others have their defaults. An empty DDL
    /// creates the inbox's tables only.
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

    /// Sets the service's DDL.
    pub fn with_schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
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

    /// Sets the lock timeout; nearly 25 days at most, which PostgreSQL can count.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// Sets the maximum of deliveries per transaction; 0 counts as 1, and more than 2,000 as that.
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
