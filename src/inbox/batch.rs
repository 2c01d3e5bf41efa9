//! The power of a store whose transaction can hold several deliveries at once, for batch handlers.

use super::{BoxFuture, InboxError, InboxKey};
use crate::event::OutgoingRecord;
use std::any::Any;
use std::error::Error;
use std::task::{Context, Poll};

/// An inbox that claims several deliveries in one transaction. [`Inbox::batches`](super::Inbox::batches) tells of it.
pub trait BatchInbox: Send + Sync {
    /// Claims deliveries, all different, in one transaction. May wait for concurrent claims of them to end, but not for ever:
    /// two batches never wait for each other.
    fn claim_batch<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<ClaimedBatch, InboxError>>;
}

/// What the inbox says of a batch.
pub struct ClaimedBatch {
    /// For each key in order: nothing where it is claimed now; for one that was completed before, what its completion left to
    /// publish, to be published again.
    pub known: Vec<Option<Result<Vec<OutgoingRecord>, InboxError>>>,
    /// The claim of those that are fresh; none where there are none.
    pub claim: Option<Box<dyn BatchClaim>>,
}

/// Deliveries claimed in one transaction. Dropping it abandons them all.
pub trait BatchClaim: Send {
    /// The transaction for the handler, once.
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>>;
    /// Commits what the handler wrote. `published` says for each fresh delivery in order what was published for it, and is
    /// nothing for one that failed: that one is given back and fresh again, but what was written for it stays, as the
    /// transaction is committed as a whole. Where all failed everything is undone.
    ///
    /// Answers, for those that did not fail, with what the caller has to publish now. An error says that none is completed.
    fn complete(
        self: Box<Self>,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> BoxFuture<'static, Result<Vec<Vec<OutgoingRecord>>, InboxError>>;
    /// Gives all of them back: everything is undone, and the next delivery of each is fresh.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>>;
    /// The same for a handler that failed with this error. True where another transaction was in the way, as for
    /// [`Claim::fail`](super::Claim::fail).
    fn fail(
        self: Box<Self>,
        _error: &(dyn Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let abandoned = self.abandon();
        Box::pin(async move { abandoned.await.map(|()| false) })
    }

    /// As [`Claim::poll_recalled`](super::Claim::poll_recalled).
    fn poll_recalled(&mut self, _: &mut Context<'_>) -> Poll<InboxError> {
        Poll::Pending
    }
}
