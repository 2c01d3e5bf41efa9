//! An inbox in process memory: for tests and for handlers whose effects live in memory too.

use super::{BoxFuture, Claimed, Inbox, InboxError, InboxKey};

/// Remembers completed deliveries until the process ends.
#[derive(Default, Clone)]
pub struct MemoryInbox {}

impl Inbox for MemoryInbox {
    fn claim<'a>(&'a self, _key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        todo!()
    }
}
