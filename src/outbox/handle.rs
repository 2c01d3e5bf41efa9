//! An outbox of any kind, for relays and operators, which do not write to it.
//!
//! Errors and logs never contain its address, because it may contain a password.
//!
//! The kinds of stores meet here and in the trait behind it only, so the relay and the tool have
//! one code for all of them.

use super::store::Store;
use super::version::OutboxVersions;
use super::{OutboxError, OutboxStatus};
use crate::store_address::{StoreAddress, not_built_in};
use std::sync::Arc;

/// An outbox of any kind, as a [`Relay`](super::Relay) and operators use it. Cheap to clone. It
/// comes from an address by [`OutboxStore::open`], or from the outbox of a service by `From`.
///
/// # Examples
/// ```no_run
/// use evenkeel::outbox::{OutboxError, OutboxStore};
///
/// # async fn example() -> Result<(), OutboxError> {
/// let status = OutboxStore::status_at("sqlite:orders.db").await?;
/// println!("{} events wait, {} keys are held", status.pending, status.held.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OutboxStore {
    port: Arc<dyn Store>,
}

impl std::fmt::Debug for OutboxStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutboxStore").finish_non_exhaustive()
    }
}

impl OutboxStore {
    /// Opens the outbox at `postgres://user@host/database` or `sqlite:PATH`. Creates or upgrades
    /// its tables, so the user needs the right to do so. If your own migrations create the tables,
    /// open the service's kind of outbox with its settings instead, and convert it.
    ///
    /// # Errors
    /// [`OutboxError::Setting`] for an address of another form or a store that this build lacks,
    /// and the errors of the store's own `open`. No error contains the address, which may hold a
    /// password.
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

    /// The versions of the outbox at this address. Changes nothing, and creates no file.
    ///
    /// # Errors
    /// The errors of [`OutboxStore::open`].
    ///
    /// # Examples
    /// ```no_run
    /// # use evenkeel::outbox::{OutboxError, OutboxStore};
    /// # async fn example() -> Result<(), OutboxError> {
    /// let versions = OutboxStore::versions("sqlite:orders.db").await?;
    /// if versions.stored < versions.newest {
    ///     println!("run: evenkeel store migrate --store sqlite:orders.db --execute");
    /// }
    /// # Ok(())
    /// # }
    /// ```
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

    /// The status of the outbox at this address, as [`OutboxStore::status`] returns it. For
    /// operators: changes nothing in the store, and neither creates nor upgrades its tables.
    ///
    /// # Errors
    /// [`OutboxError::Foreign`] if the store has no outbox, or one of another version, with the
    /// remedy; otherwise the errors of [`OutboxStore::open`] and [`OutboxStore::status`].
    pub async fn status_at(address: &str) -> Result<OutboxStatus, OutboxError> {
        let store: Self = match address_of(address)? {
            #[cfg(feature = "postgres")]
            StoreAddress::Postgres(url) => super::PostgresOutbox::open_unchanged(url).await?.into(),
            #[cfg(feature = "sqlite")]
            StoreAddress::Sqlite(path) => super::SqliteOutbox::open_unchanged(path).await?.into(),
            #[allow(unreachable_patterns)]
            _ => return Err(OutboxError::Setting(not_built_in())),
        };
        store.status().await
    }

    /// The waiting events, the held keys, and the relays of this outbox. Several queries, each of
    /// its own moment: numbers may differ by what happens meanwhile.
    ///
    /// # Errors
    /// [`OutboxError::Store`] if the store fails or cannot be reached. May be retried.
    pub async fn status(&self) -> Result<OutboxStatus, OutboxError> {
        self.port.status().await
    }

    /// The store behind the handle, for the relay.
    pub(super) fn port(self) -> Arc<dyn Store> {
        self.port
    }
}

/// The kind of the store. The error describes the forms and does not repeat the address.
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
