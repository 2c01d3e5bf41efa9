//! The trait of stores whose completed deliveries can be read.

use crate::event::ContentDigest;
use crate::inbox::{BoxFuture, InboxError, InboxKey};
use std::sync::Arc;

/// A completed delivery. Implementations of [`Completions`] build it field by field, so it is
/// exhaustive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The time of the completion, in milliseconds since the epoch, by the clock of the store or of
    /// the process that completed it.
    pub at_ms: i64,
    /// The digest of the event's content; `None` if the store does not have it.
    pub content: Option<ContentDigest>,
}

/// A store that reports the completions of many deliveries at once.
///
/// Called by the audit and by tests, from any task. The methods wait for the store only, and their
/// futures may be dropped at any time. A delivery with an open claim is not completed. A result
/// contains all deliveries completed before the call; it may contain deliveries completed during
/// the call.
///
/// # Errors
/// Each method returns the store's error: [`InboxError::Unavailable`] may be retried, and
/// [`InboxError::NotWritable`] needs an operator, for example for a missing permission.
///
/// # Examples
/// ```
/// use evenkeel::inbox::{Completions, InboxKey, MemoryInbox};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel::inbox::InboxError> {
/// let store = MemoryInbox::default();
/// let key = InboxKey::new("mailer", "welcome", "/shop/web", "1");
/// assert_eq!(store.completed(&[key]).await?, [None]);
/// assert!(!store.has_group("mailer").await?);
/// # Ok(())
/// # }
/// ```
pub trait Completions: Send + Sync + 'static {
    /// The completion of each of these deliveries, in the order of `keys`; `None` for a delivery
    /// that was not completed. The store splits a list that is too long for one statement.
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>>;

    /// Whether each of these handlers completed any delivery of the group, in the order of the
    /// handlers. The audit uses it to tell a handler that has lost events from one that never ran.
    /// Without an index it may read the whole table once per handler.
    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>>;

    /// Whether the store has any delivery of the group. A store that has none is usually the wrong
    /// one.
    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>>;
}

/// A store that is being opened for reading.
pub(in crate::inbox) type Opening<'a> = BoxFuture<'a, Result<Arc<dyn Completions>, InboxError>>;

/// Opens the store of a group at an address, for reading. `None` if the address has the form of
/// another kind of store.
pub(in crate::inbox) type Opener =
    for<'a> fn(address: &'a str, group: &'a str) -> Option<Opening<'a>>;
