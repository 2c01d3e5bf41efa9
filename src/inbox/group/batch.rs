//! Deliveries that one handler takes together: one transaction that it has as a whole.
//!
//! Owns how such a batch ends. Its transaction is one of those that a store may have open, and is waited for behind groups.

use super::lend::{Loan, lend};
use super::{GroupStore, Groups, Known, closing};
use crate::event::OutgoingRecord;
use crate::inbox::{BatchClaim, BoxFuture, ClaimedBatch, InboxError, InboxKey};
use std::any::Any;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

impl<S: GroupStore> Groups<S> {
    /// Claims deliveries, all different, in a transaction of their own.
    pub(in crate::inbox) async fn claim_batch(
        self: &Arc<Self>,
        keys: &[InboxKey],
    ) -> Result<ClaimedBatch, InboxError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| closing())?;
        let (open, known) = self.store.begin(keys).await?;
        let mut fresh = Vec::with_capacity(keys.len());
        let known = known.into_iter().zip(keys).map(|(known, key)| match known {
            Known::Nothing => {
                fresh.push(key.clone());
                None
            }
            Known::Completed(unsent) => Some(unsent),
        });
        let known = known.collect();
        if fresh.is_empty() {
            self.store.roll_back(open).await?;
            return Ok(ClaimedBatch { known, claim: None });
        }
        // Nobody waits for its return: what comes back after the claim has ended is dropped, and that undoes it.
        let (loan, _) = lend(open);
        let claim = GroupBatch {
            groups: Arc::clone(self),
            keys: fresh,
            loan,
            _place: place,
        };
        Ok(ClaimedBatch {
            known,
            claim: Some(Box::new(claim)),
        })
    }
}

struct GroupBatch<S: GroupStore> {
    groups: Arc<Groups<S>>,
    keys: Vec<InboxKey>,
    loan: Loan<S::Open>,
    _place: OwnedSemaphorePermit,
}

impl<S: GroupStore> GroupBatch<S> {
    async fn settle(
        self,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> Result<Vec<Vec<OutgoingRecord>>, InboxError> {
        let store = &self.groups.store;
        let mut open = self.loan.take()?;
        if published.iter().all(Option::is_none) {
            store.roll_back(open).await?;
            return Ok(Vec::new());
        }
        let mut unsent = Vec::with_capacity(published.len());
        let mut failed = Vec::new();
        for (key, published) in self.keys.into_iter().zip(published) {
            match published {
                Some(published) => unsent.push(store.keep(&mut open, &key, published).await?),
                None => failed.push(key),
            }
        }
        if !failed.is_empty() {
            store.forget(&mut open, &failed).await?;
        }
        store.close(&mut open).await?;
        store.commit(open).await?;
        Ok(unsent)
    }
}

impl<S: GroupStore> BatchClaim for GroupBatch<S> {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.loan.to_handler().map(S::to_handler)
    }

    fn complete(
        self: Box<Self>,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> BoxFuture<'static, Result<Vec<Vec<OutgoingRecord>>, InboxError>> {
        Box::pin(self.settle(published))
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(async move {
            let open = self.loan.take()?;
            self.groups.store.roll_back(open).await
        })
    }
}
