//! An outbox of any kind, for relays and operators, which do not write to it.
//!
//! Errors and logs never contain its address, because it may contain a password.
//!
//! The kinds of stores meet here and in the trait behind it only, so the relay and the tool have
//! one code for all of them. `open.rs` selects the kind by an address.

mod open;

use super::store::{Answer, Store};
use super::version::OutboxVersions;
use super::{OutboxError, OutboxStatus};
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
    /// The handle of `store`, for the `From` of each kind of outbox.
    pub(super) fn of(store: impl Store) -> Self {
        Self {
            port: Arc::new(store),
        }
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

/// How an outbox of one kind is reached by its address. Each function returns `None` for an address
/// that has the form of another kind.
pub(super) struct Opener {
    /// Opens the outbox; creates or upgrades its tables.
    pub(super) open: for<'a> fn(address: &'a str) -> Option<Answer<'a, OutboxStore>>,
    /// Opens the outbox for a reader; refuses tables of another version and changes nothing.
    pub(super) open_unchanged: for<'a> fn(address: &'a str) -> Option<Answer<'a, OutboxStore>>,
    /// Reads the versions of the outbox; changes nothing.
    pub(super) versions: for<'a> fn(address: &'a str) -> Option<Answer<'a, OutboxVersions>>,
}
