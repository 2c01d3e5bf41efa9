//! Opens a store of any kind for reading.
//!
//! The address decides the kind of store: operators give one text for all kinds, and the tool needs
//! no code per store.

use super::completion::Completions;
use crate::inbox::{InboxError, READERS};
use crate::store_address;
use std::sync::Arc;

/// Opens the store of `group` at `postgres://user@host/database` or `sqlite:PATH` for reading.
/// Creates and upgrades nothing.
///
/// A SQLite store belongs to one group, and `group` must be that group. A PostgreSQL store may
/// serve several, so `group` is not checked here.
///
/// # Errors
/// [`InboxError::Setting`] for an address of another form or a store that this build lacks, and the
/// errors of the store's own `open`. No error contains the address, which may hold a password.
///
/// # Examples
/// ```no_run
/// use evenkeel::inbox::{InboxKey, completions};
///
/// # async fn example() -> Result<(), evenkeel::inbox::InboxError> {
/// let store = completions::open("sqlite:mailer.db", "mailer").await?;
/// let key = InboxKey::new("mailer", "welcome", "/shop/web", "1");
/// match store.completed(&[key]).await?[0] {
///     Some(completion) => println!("handled at {} ms", completion.at_ms),
///     None => println!("not handled"),
/// }
/// # Ok(())
/// # }
/// ```
pub async fn open(address: &str, group: &str) -> Result<Arc<dyn Completions>, InboxError> {
    let opened = READERS.iter().find_map(|open| open(address, group));
    match opened {
        Some(opened) => opened.await,
        None => Err(InboxError::Setting(store_address::refusal(address))),
    }
}
