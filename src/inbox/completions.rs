//! What a store says of deliveries to those who look from outside: the audit, and tests.
//!
//! Owns the port. Knows no claim and no transaction: looking holds nobody up and changes nothing.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;

use super::address::{StoreAddress, not_built_in};
use super::{BoxFuture, InboxError, InboxKey};
use crate::event::ContentDigest;
use std::sync::Arc;

/// A completed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// What the event said; none where the store does not know.
    pub content: Option<ContentDigest>,
}

/// The power of a store to say what it has of many deliveries at once.
///
/// Its methods wait for the store and for nothing else: a delivery whose claim is open is not completed. What is completed
/// while they run may be told or not; what was completed before they were called is told.
pub trait Completions: Send + Sync + 'static {
    /// How each of these deliveries was completed, in the order of `keys`; none for one that was not. The store splits what is
    /// too much for it.
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>>;

    /// Whether any delivery of the group was completed by each of these handlers, in their order.
    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>>;

    /// Whether the store has any delivery of the group at all.
    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>>;
}

/// Opens the store of `group` at `postgres://user@host/database` or `sqlite:PATH`, to look at it: nothing is created or brought
/// up to date.
///
/// # Errors
/// [`InboxError::Setting`] for an address of another form, and those of the kind's own `open`.
pub async fn open(address: &str, group: &str) -> Result<Arc<dyn Completions>, InboxError> {
    #[cfg(not(feature = "sqlite"))]
    let _ = group;
    match StoreAddress::of(address).map_err(InboxError::Setting)? {
        #[cfg(feature = "postgres")]
        StoreAddress::Postgres(url) => {
            use super::{Migration, PostgresInbox, PostgresSettings};
            let settings = PostgresSettings::new("")
                .with_migration(Migration::Elsewhere)
                .with_connections(1);
            Ok(Arc::new(PostgresInbox::open_with(url, &settings).await?))
        }
        #[cfg(feature = "sqlite")]
        StoreAddress::Sqlite(path) => {
            let look = super::SqliteCompletions::open(path, group).await?;
            Ok(Arc::new(look))
        }
        #[allow(unreachable_patterns)]
        _ => Err(InboxError::Setting(not_built_in())),
    }
}
