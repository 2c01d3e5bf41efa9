//! Deliveries whose handlers name no transaction: looked up before the handler, claimed at
//! completion.
//!
//! Holds nothing of the store while the handler runs, so that a handler that waits for something
//! else blocks no other claim. Its effects are outside of the store's transaction in any case; its
//! row and its published events are inside. Its turn in a group ends as it begins, without a round
//! trip.
//!
//! The claim at completion decides: if another owner completed the delivery meanwhile, this
//! completion publishes the other one's events and drops its own, so consumers see one set of
//! events.

use super::transaction_handoff::Completed;
use super::{GroupStore, Groups, Known};
use crate::event::OutgoingRecord;
use crate::inbox::{BoxFuture, Claim, Claimed, InboxError, InboxKey};
use std::any::Any;
use std::sync::Arc;

impl<S: GroupStore> Groups<S> {
    /// Looks up whether a delivery was completed, and claims it only at its completion.
    pub(in crate::inbox) async fn claim_at_completion(
        self: &Arc<Self>,
        key: InboxKey,
    ) -> Result<Claimed, InboxError> {
        match self.store.find(&key).await? {
            Known::Completed(unsent) => Ok(Claimed::Duplicate { unsent: unsent? }),
            Known::Nothing => Ok(Claimed::Fresh(Box::new(LateClaim {
                groups: Arc::clone(self),
                key,
            }))),
        }
    }
}

/// A delivery that was looked up and is not claimed yet. Dropping it leaves no trace.
struct LateClaim<S: GroupStore> {
    groups: Arc<Groups<S>>,
    key: InboxKey,
}

impl<S: GroupStore> LateClaim<S> {
    /// Claims the delivery and completes it at once, or adopts the completion of another owner.
    async fn settle(self, published: Vec<OutgoingRecord>) -> Completed {
        match self.groups.claim(self.key).await? {
            Claimed::Fresh(claim) => claim.complete(published).await,
            // Another owner completed it first: the events of that completion are kept.
            Claimed::Duplicate { unsent } => Ok(unsent),
        }
    }
}

impl<S: GroupStore> Claim for LateClaim<S> {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(self: Box<Self>, published: Vec<OutgoingRecord>) -> BoxFuture<'static, Completed> {
        Box::pin(self.settle(published))
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
