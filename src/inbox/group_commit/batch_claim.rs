//! Deliveries that one handler takes as a batch, with one transaction for the whole batch.
//!
//! Owns the end of such a batch. Its transaction counts against the limit of the store's open
//! transactions and waits behind groups.
//!
//! A batch needs no savepoints: it commits as a whole or not at all. It waits for a permit of the
//! store's open transactions like a group, so batches and groups together never open more than the
//! store's bound. Its keys are not in the queue: two claims of one key meet in the store, whose
//! unique key lets one of them wait.

use super::store::RECALL_AFTER;
use super::transaction_handoff::{Handoff, Recall, hand_off, shutting_down};
use super::{GroupStore, Groups, Known, Level};
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
    /// Claims deliveries with distinct keys in a transaction of their own. If all are known,
    /// nothing stays open. Dropping the future rolls the transaction back and frees the permit.
    pub(in crate::inbox) async fn claim_batch(
        self: &Arc<Self>,
        keys: &[InboxKey],
    ) -> Result<ClaimedBatch, InboxError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| shutting_down())?;
        let level = self.lock().level(Instant::now());
        let claimed = self.begin_batch(keys, level).await;
        let (open, known) =
            claimed.inspect_err(|error| self.report_collision(keys, level, error))?;
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
        // Nothing waits for its return: a transaction that returns after the claim has ended is
        // dropped, which undoes it.
        let (handoff, _) = hand_off(open);
        let watching = recall_when_silent(Arc::clone(self), handoff.recall());
        let claim = GroupBatch {
            groups: Arc::clone(self),
            keys: fresh,
            level,
            _watching: AbortOnDropHandle::new(tokio::spawn(watching)),
            handoff,
            _permit: permit,
        };
        Ok(ClaimedBatch {
            known,
            claim: Some(Box::new(claim)),
        })
    }

    /// Begins the transaction of a batch and claims its keys.
    async fn begin_batch(
        &self,
        keys: &[InboxKey],
        level: Level,
    ) -> Result<(S::Open, Vec<Known>), InboxError> {
        let open = self.store.begin().await?;
        self.store.claim_batch(open, keys, level).await
    }

    /// Records whether a transaction of this store lost against another one. Any other error
    /// changes no level.
    fn report_collision(&self, keys: &[InboxKey], level: Level, error: &InboxError) {
        if let Some(cause) = S::cause(None, error) {
            self.collided(keys, level, cause);
        }
    }
}

/// The claim of a batch. Its fields are dropped in their order: the transaction returns and is
/// rolled back before the permit is free.
struct GroupBatch<S: GroupStore> {
    groups: Arc<Groups<S>>,
    keys: Vec<InboxKey>,
    level: Level,
    handoff: Handoff<S::Open>,
    /// Checks the store while the handler runs; ends with the claim.
    _watching: AbortOnDropHandle<()>,
    /// Counts against the open transactions of the store.
    _permit: OwnedSemaphorePermit,
}

/// Recalls the transaction when the store no longer answers.
async fn recall_when_silent<S: GroupStore>(groups: Arc<Groups<S>>, recall: Recall<S::Open>) {
    loop {
        tokio::time::sleep(RECALL_AFTER).await;
        if let Err(error) = groups.store.check().await {
            return recall.now(error);
        }
    }
}

impl<S: GroupStore> GroupBatch<S> {
    /// Commits, and reports a collision at the commit under one key of the batch.
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
        committed.inspect_err(|error| groups.report_collision(&first, level, error))
    }

    /// Commits the deliveries that have published events, and releases the others in the same
    /// transaction. If all failed, everything is rolled back.
    async fn commit(
        self,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> Result<Vec<Vec<OutgoingRecord>>, InboxError> {
        let store = &self.groups.store;
        let mut open = self.handoff.take()?;
        if published.iter().all(Option::is_none) {
            store.roll_back(open).await?;
            return Ok(Vec::new());
        }
        let mut unsent = Vec::with_capacity(published.len());
        let mut failed = Vec::new();
        for (key, published) in self.keys.into_iter().zip(published) {
            match published {
                Some(published) => unsent.push(store.stage(&mut open, &key, published)),
                None => failed.push(key),
            }
        }
        if !failed.is_empty() {
            store.release_claims(&mut open, &failed).await?;
        }
        store.prepare(&mut open).await?;
        store.commit(open).await?;
        Ok(unsent)
    }
}

impl<S: GroupStore> BatchClaim for GroupBatch<S> {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.handoff.to_handler().map(S::to_handler)
    }

    fn complete(
        self: Box<Self>,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> BoxFuture<'static, Result<Vec<Vec<OutgoingRecord>>, InboxError>> {
        Box::pin(self.settle(published))
    }

    fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        self.handoff.poll_recalled(cx)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(async move {
            let open = self.handoff.take()?;
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
            handoff,
            _watching,
            _permit: permit,
        } = *self;
        let open = match handoff.take() {
            Ok(open) => open,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let cause = S::cause(Some(&open), error);
        Box::pin(async move {
            if let Some(cause) = cause {
                groups.collided(&keys, level, cause);
            }
            let rolled_back = groups.store.roll_back(open).await;
            drop(permit);
            rolled_back.map(|()| cause.is_some())
        })
    }
}
