//! A drilled store whose transaction holds a batch.
//!
//! Deliveries of a batch share one commit, so a fault that affects one of them affects all. Whether
//! it does depends on the first delivery that succeeded, which keeps the choice independent of the
//! batch's other members.

use super::plan::drilled;
use super::{CrashPoint, DrilledInbox, Drills};
use crate::event::OutgoingRecord;
use crate::inbox::{BatchClaim, BatchInbox, BoxFuture, ClaimedBatch, Inbox, InboxError, InboxKey};
use std::any::Any;
use std::error::Error;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

impl<I: Inbox> BatchInbox for DrilledInbox<I> {
    fn claim_batch<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<ClaimedBatch, InboxError>> {
        Box::pin(async move {
            let drills = &self.drills;
            let Some(batches) = self.inner.batches() else {
                return Err(drilled("the store has no batches"));
            };
            drills.store().await?;
            let ClaimedBatch { known, claim } = batches.claim_batch(keys).await?;
            drills.state.claims.fetch_add(1, Ordering::Relaxed);
            let mut fresh = Vec::new();
            for (key, known) in keys.iter().zip(&known) {
                match known {
                    None => fresh.push((key.clone(), drills.record().started(key))),
                    Some(_) => drills.record().suppressed(key),
                }
            }
            let claim = claim.map(|inner| -> Box<dyn BatchClaim> {
                drills.crash_if_at(CrashPoint::BeforeEffect);
                Box::new(DrilledBatch {
                    inner,
                    keys: fresh,
                    drills: drills.clone(),
                })
            });
            Ok(ClaimedBatch { known, claim })
        })
    }
}

/// The claim of a batch, with the fresh deliveries among its keys.
struct DrilledBatch {
    inner: Box<dyn BatchClaim>,
    /// Each key with the number of its attempt.
    keys: Vec<(InboxKey, u32)>,
    drills: Drills,
}

impl BatchClaim for DrilledBatch {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.inner.transaction()
    }

    fn complete(
        self: Box<Self>,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> BoxFuture<'static, Result<Vec<Vec<OutgoingRecord>>, InboxError>> {
        Box::pin(async move {
            let Self {
                inner,
                keys,
                drills,
            } = *self;
            drills.crash_if_at(CrashPoint::BeforeCommit);
            if keys.len() > 1 {
                drills.crash_if_at(CrashPoint::InGroup);
            }
            drills.store().await?;
            let succeeded = keys.into_iter().zip(&published);
            let succeeded = succeeded.filter(|(_, published)| published.is_some());
            let succeeded: Vec<_> = succeeded.map(|(key, _)| key).collect();
            // A fault of one delivery affects the whole transaction.
            let strikes = |share, what| {
                let first = succeeded.first();
                first.is_some_and(|(key, attempt)| {
                    drills.applies_to(share, (what, (&key.source, &key.id, *attempt)))
                })
            };
            if strikes(drills.plan.refused, "refused") {
                inner.abandon().await?;
                for (key, _) in &succeeded {
                    drills.record().refused(key);
                }
                return Err(drilled("the commit is refused"));
            }
            let unsent = inner.complete(published).await?;
            for (key, _) in &succeeded {
                drills.record().completed(key);
            }
            drills.crash_if_at(CrashPoint::AfterCommit);
            if strikes(drills.plan.lost, "lost") {
                return Err(drilled("the answer to the commit is lost"));
            }
            Ok(unsent)
        })
    }

    fn poll_recalled(&mut self, cx: &mut Context<'_>) -> Poll<InboxError> {
        self.inner.poll_recalled(cx)
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        self.inner.abandon()
    }

    fn fail(
        self: Box<Self>,
        error: &(dyn Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        self.inner.fail(error)
    }
}
