//! The trait of stores whose completed deliveries can be read.

use crate::event::ContentDigest;
use crate::inbox::{BoxFuture, InboxError, InboxKey};

/// A completed delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// The time of the completion, in milliseconds since the epoch.
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
pub trait Completions: Send + Sync + 'static {
    /// The completion of each of these deliveries, in the order of `keys`; `None` for a delivery
    /// that was not completed. The store splits a list that is too long for one statement.
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>>;

    /// Whether each of these handlers completed any delivery of the group, in the order of the
    /// handlers.
    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>>;

    /// Whether the store has any delivery of the group.
    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>>;
}
