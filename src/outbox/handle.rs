//! An outbox of any kind, for relays and operators, which do not write to it.
//!
//! Errors and logs never contain its address, because it may contain a password.

use super::store::Store;
use super::version::OutboxVersions;
use super::{OutboxError, OutboxStatus};
use crate::store_address::{StoreAddress, not_built_in};
use std::sync::Arc;

/// An outbox of any kind, as a [`Relay`](super::Relay) and operators use it. Cheap to clone.
///
/// ```no_run
/// use evenkeel::outbox::{OutboxError, OutboxStore};
///
/// # async fn example() -> Result<(), OutboxError> {
/// let status = OutboxStore::open("sqlite:orders.db").await?.status().await?;
/// println!("{} events wait, {} keys are held", status.pending, status.held.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OutboxStore {
    port: Arc<dyn Store>,
}

impl OutboxStore {
    /// Opens the outbox at `postgres://user@host/database` or `sqlite:PATH`. Creates or upgrades
    /// its tables.
    ///
    /// # Errors
    /// [`OutboxError::Setting`] for an address of another form, and the errors of the store's own
    /// `open`.
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

    /// The versions of the outbox at this address. Changes nothing.
    ///
    /// # Errors
    /// The errors of [`OutboxStore::open`].
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

    /// The waiting events, the held keys, and the relays of this outbox.
    ///
    /// # Errors
    /// If the store does not answer.
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
