//! Deliveries that one handler takes together: one transaction that it has as a whole.
//!
//! Owns how such a batch ends. Its transaction is one of those that a store may have open, and is waited for behind groups.

use super::lend::{Loan, Recall, lend};
use super::{GroupStore, Groups, Known, Level, RECALL_AFTER, closing};
use crate::event::OutgoingRecord;
use crate::inbox::{BatchClaim, BoxFuture, ClaimedBatch, InboxError, InboxKey};
use std::any::Any;
use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

impl<S: GroupStore> Groups<S> {
    /// Claims deliveries, all different, in a transaction of their own.
    pub(in crate::inbox) async fn claim_batch(
        self: &Arc<Self>,
        keys: &[InboxKey],
    ) -> Result<ClaimedBatch, InboxError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| closing())?;
        let level = self.lock().level(Instant::now());
        let begun = self.store.begin(keys, level).await;
        let (open, known) = begun.inspect_err(|error| self.judge(keys, level, error))?;
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
        let watched = watch(Arc::clone(self), loan.recall());
        let claim = GroupBatch {
            groups: Arc::clone(self),
            keys: fresh,
            level,
            _watched: AbortOnDropHandle::new(tokio::spawn(watched)),
            loan,
            _place: place,
        };
        Ok(ClaimedBatch {
            known,
            claim: Some(Box::new(claim)),
        })
    }

    /// Notes whether a transaction of this store was lost to another one.
    fn judge(&self, keys: &[InboxKey], level: Level, error: &InboxError) {
        if let Some(cause) = S::cause(None, error) {
            self.collided(keys, level, cause);
        }
    }
}

struct GroupBatch<S: GroupStore> {
    groups: Arc<Groups<S>>,
    keys: Vec<InboxKey>,
    level: Level,
    loan: Loan<S::Open>,
    _watched: AbortOnDropHandle<()>,
    _place: OwnedSemaphorePermit,
}

/// Recalls the transaction when the store answers nobody any more.
async fn watch<S: GroupStore>(groups: Arc<Groups<S>>, recall: Recall) {
    loop {
        tokio::time::sleep(RECALL_AFTER).await;
        if let Err(error) = groups.store.check().await {
            return recall.now(error);
        }
    }
}

impl<S: GroupStore> GroupBatch<S> {
    async fn settle(
        self,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> Result<Vec<Vec<OutgoingRecord>>, InboxError> {
        let (groups, first, level) = (
            Arc::clone(&self.groups),
            self.keys[..1].to_vec(),
            self.level,
        );
        let committed = self.commit(published).await;
        committed.inspect_err(|error| groups.judge(&first, level, error))
    }

    async fn commit(
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

    fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        self.loan.poll_recalled(cx)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(async move {
            let open = self.loan.take()?;
            self.groups.store.roll_back(open).await
        })
    }

    fn fail(
        self: Box<Self>,
        error: &(dyn Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let Self {
            groups,
            keys,
            level,
            loan,
            _watched,
            _place: place,
        } = *self;
        let open = match loan.take() {
            Ok(open) => open,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let cause = S::cause(Some(&open), error);
        Box::pin(async move {
            if let Some(cause) = cause {
                groups.collided(&keys, level, cause);
            }
            let rolled_back = groups.store.roll_back(open).await;
            drop(place);
            rolled_back.map(|()| cause.is_some())
        })
    }
}
