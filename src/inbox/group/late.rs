//! Deliveries whose handlers name no transaction: looked at before, claimed when they are to be completed.
//!
//! Owns nothing of the store while the handler runs, so that one that waits for something else holds nobody up. What it does is
//! not in the store's transaction anyway; its row and what it published are.

use super::{Completed, GroupStore, Groups, Known};
use crate::event::OutgoingRecord;
use crate::inbox::{BoxFuture, Claim, Claimed, InboxError, InboxKey};
use std::any::Any;
use std::sync::Arc;

impl<S: GroupStore> Groups<S> {
    /// Says whether a delivery was completed, and claims it no sooner than it is to be completed now.
    pub(in crate::inbox) async fn claim_at_completion(
        self: &Arc<Self>,
        key: InboxKey,
    ) -> Result<Claimed, InboxError> {
        match self.store.look(&key).await? {
            Known::Completed(unsent) => Ok(Claimed::Duplicate { unsent: unsent? }),
            Known::Nothing => Ok(Claimed::Fresh(Box::new(LateClaim {
                groups: Arc::clone(self),
                key,
            }))),
        }
    }
}

struct LateClaim<S: GroupStore> {
    groups: Arc<Groups<S>>,
    key: InboxKey,
}

impl<S: GroupStore> LateClaim<S> {
    async fn settle(self, published: Vec<OutgoingRecord>) -> Completed {
        match self.groups.claim(self.key).await? {
            Claimed::Fresh(claim) => claim.complete(published).await,
            // Another owner was faster: what it published stands.
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
