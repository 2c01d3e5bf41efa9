//! How a PostgreSQL store is opened.

use std::time::Duration;

/// Less than the 64 subtransactions that PostgreSQL keeps in memory for each transaction; a handler may have a few of its own.
const SAVEPOINTS_MAX: u32 = 60;

/// How a PostgreSQL store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct PostgresSettings {
    /// The service's own DDL, idempotent (`CREATE TABLE IF NOT EXISTS …`): it runs at every start, in the transaction that
    /// brings the inbox's tables up to date.
    pub schema: String,
    /// Who brings the tables up to date.
    pub migration: Migration,
    /// How many transactions are open at a time: what is ready is spread over them. 4 by default. More serve handlers that
    /// wait long for the database; fewer make larger groups. Where handlers share rows, so that the transactions are in each
    /// other's way, one at a time is open whatever stands here. Two connections more are made for what is not a delivery.
    pub connections: u32,
    /// How long a claim waits for a connection, and a statement for somebody else's lock, before it fails as unavailable. 10 s
    /// by default. Beside other groups a handler's statement waits less, and its delivery is then handled again.
    pub lock_timeout: Duration,
    /// How many deliveries share a transaction at most; 60 by default, 2,000 at most, 1 for a transaction each. It is what is ready that
    /// decides: nothing waits for others to come. Each that writes is a subtransaction, of which PostgreSQL keeps 64 at hand for a
    /// transaction: with more every query of the server, and of its replicas, gets slower while the transaction is open.
    pub group_max: u32,
}

/// Who brings the tables of a store up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Migration {
    /// Whoever opens it, under a lock, so that instances may start together.
    #[default]
    OnOpen,
    /// `evenkeel store migrate`, run by somebody who may create tables. Opening only checks the version, and the service's own
    /// DDL is not run.
    Elsewhere,
}

impl PostgresSettings {
    /// The settings of a service with its DDL; everything else by default.
    pub fn new(schema: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            migration: Migration::default(),
            connections: 4,
            lock_timeout: Duration::from_secs(10),
            group_max: SAVEPOINTS_MAX,
        }
    }

    /// The same with the tables brought up to date by somebody else.
    pub fn with_migration(mut self, migration: Migration) -> Self {
        self.migration = migration;
        self
    }

    /// The same with another number of connections; at least 1.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// The same with another lock timeout.
    pub fn with_lock_timeout(mut self, lock_timeout: Duration) -> Self {
        self.lock_timeout = lock_timeout;
        self
    }

    /// The same with another number of deliveries to a transaction.
    pub fn with_group_max(mut self, group_max: u32) -> Self {
        self.group_max = group_max;
        self
    }
}
