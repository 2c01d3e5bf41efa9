//! An outbox of any kind, for those who do not write to it: relays and operators.
//!
//! Owns the addresses by which stores are named, and never tells one further, as it may hold a password.

use super::store::Store;
use super::{OutboxError, OutboxStatus};
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

/// A store's kind and where it is.
enum Address<'a> {
    #[cfg(feature = "postgres")]
    Postgres(&'a str),
    #[cfg(feature = "sqlite")]
    Sqlite(&'a std::path::Path),
}

impl OutboxStore {
    /// Opens the outbox at `postgres://user@host/database` or `sqlite:PATH`, and creates its tables or brings them up to date.
    ///
    /// # Errors
    /// For an address of another form, and those of the kind's own `open`.
    pub async fn open(address: &str) -> Result<Self, OutboxError> {
        match Address::of(address)? {
            #[cfg(feature = "postgres")]
            Address::Postgres(url) => Ok(super::PostgresOutbox::open(url).await?.into()),
            #[cfg(feature = "sqlite")]
            Address::Sqlite(path) => Ok(super::SqliteOutbox::open(path).await?.into()),
        }
    }

    /// The versions of the outbox at this address; changes nothing.
    ///
    /// # Errors
    /// As for [`OutboxStore::open`].
    pub async fn versions(address: &str) -> Result<OutboxVersions, OutboxError> {
        match Address::of(address)? {
            #[cfg(feature = "postgres")]
            Address::Postgres(url) => super::PostgresOutbox::versions(url).await,
            #[cfg(feature = "sqlite")]
            Address::Sqlite(path) => super::SqliteOutbox::versions(path).await,
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

impl<'a> Address<'a> {
    fn of(address: &'a str) -> Result<Self, OutboxError> {
        #[cfg(feature = "postgres")]
        if address.starts_with("postgres://") || address.starts_with("postgresql://") {
            return Ok(Self::Postgres(address));
        }
        #[cfg(feature = "sqlite")]
        if let Some(path) = address
            .strip_prefix("sqlite:")
            .filter(|path| !path.is_empty())
        {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Sqlite(path.as_ref()));
        }
        Err(OutboxError::Setting(
            "a store is named as postgres://user@host/database or sqlite:PATH, for a program that was built for its kind"
                .to_owned(),
        ))
    }
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
