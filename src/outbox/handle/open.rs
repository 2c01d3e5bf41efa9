//! Opens an outbox of any kind by its address.

use super::OutboxStore;
use crate::outbox::{OPENERS, OutboxError, OutboxStatus, OutboxVersions};
use crate::store_address;

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
        let opened = OPENERS.iter().find_map(|kind| (kind.open)(address));
        opened.ok_or_else(|| refusal(address))?.await
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
        let versions = OPENERS.iter().find_map(|kind| (kind.versions)(address));
        versions.ok_or_else(|| refusal(address))?.await
    }

    /// The status of the outbox at this address, as [`OutboxStore::status`] returns it. For
    /// operators: changes nothing in the store, and neither creates nor upgrades its tables.
    ///
    /// # Errors
    /// [`OutboxError::Foreign`] if the store has no outbox, or one of another version, with the
    /// remedy; otherwise the errors of [`OutboxStore::open`] and [`OutboxStore::status`].
    pub async fn status_at(address: &str) -> Result<OutboxStatus, OutboxError> {
        let opened = OPENERS
            .iter()
            .find_map(|kind| (kind.open_unchanged)(address));
        opened
            .ok_or_else(|| refusal(address))?
            .await?
            .status()
            .await
    }
}

/// The error describes the forms of addresses and does not repeat this one.
fn refusal(address: &str) -> OutboxError {
    OutboxError::Setting(store_address::refusal(address))
}
