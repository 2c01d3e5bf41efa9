//! An outbox of any kind, for those who do not write to it: relays and operators.
//!
//! Never tells an address further, as it may hold a password.

use super::store::Store;
use super::{OutboxError, OutboxStatus};
use crate::inbox::address::{StoreAddress, not_built_in};
use std::sync::Arc;

/// An outbox of any kind. Cheap to clone.
#[derive(Clone)]
pub struct OutboxStore {
    port: Arc<dyn Store>,
}

/// Which version of its tables an outbox has, and which this release makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxVersions {
    /// The version in the store; 0 where there is no outbox yet.
    pub stored: usize,
    /// The newest that this release knows.
    pub newest: usize,
}

impl OutboxStore {
    /// Opens the outbox at `postgres://user@host/database` or `sqlite:PATH`, and creates its tables or brings them up to date.
    ///
    /// # Errors
    /// For an address of another form, and those of the kind's own `open`.
    pub async fn open(address: &str) -> Result<Self, OutboxError> {
        match address_of(address)? {
            #[cfg(feature = "postgres")]
            StoreAddress::Postgres(url) => Ok(super::PostgresOutbox::open(url).await?.into()),
            #[cfg(feature = "sqlite")]
            StoreAddress::Sqlite(path) => Ok(super::SqliteOutbox::open(path).await?.into()),
            #[allow(unreachable_patterns)]
            _ => Err(OutboxError::Setting(not_built_in())),
        }
    }

    /// The versions of the outbox at this address; changes nothing.
    ///
    /// # Errors
    /// As for [`OutboxStore::open`].
    pub async fn versions(address: &str) -> Result<OutboxVersions, OutboxError> {
        match address_of(address)? {
            #[cfg(feature = "postgres")]
            StoreAddress::Postgres(url) => super::PostgresOutbox::versions(url).await,
            #[cfg(feature = "sqlite")]
            StoreAddress::Sqlite(path) => super::SqliteOutbox::versions(path).await,
            #[allow(unreachable_patterns)]
            _ => Err(OutboxError::Setting(not_built_in())),
        }
    }

    /// What waits, what does not get out, and who looks after it.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn status(&self) -> Result<OutboxStatus, OutboxError> {
        self.port.status().await
    }

    pub(super) fn port(self) -> Arc<dyn Store> {
        self.port
    }
}

fn address_of(address: &str) -> Result<StoreAddress<'_>, OutboxError> {
    StoreAddress::of(address).map_err(OutboxError::Setting)
}

#[cfg(feature = "postgres")]
impl From<super::PostgresOutbox> for OutboxStore {
    fn from(outbox: super::PostgresOutbox) -> Self {
        let port = Arc::new(outbox);
        Self { port }
    }
}

#[cfg(feature = "sqlite")]
impl From<super::SqliteOutbox> for OutboxStore {
    fn from(outbox: super::SqliteOutbox) -> Self {
        let port = Arc::new(outbox);
        Self { port }
    }
}
