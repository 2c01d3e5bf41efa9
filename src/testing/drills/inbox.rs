//! An inbox with injected faults.

use super::plan::drilled;
use super::{CrashPoint, Drills};
use crate::event::OutgoingRecord;
use crate::inbox::{BatchInbox, BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey};
use std::any::{Any, TypeId};
use std::error::Error;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

/// An inbox that refuses commits, loses answers, is slow or is unavailable, as its [`Drills`]
/// define. [`Drills::inbox`] creates it. Otherwise it behaves like the wrapped one: it hands out
/// the same transactions, and batches deliveries if that does.
#[derive(Clone)]
pub struct DrilledInbox<I> {
    pub(super) inner: I,
    pub(super) drills: Drills,
}

impl<I> std::fmt::Debug for DrilledInbox<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DrilledInbox")
            .field("drills", &self.drills)
            .finish_non_exhaustive()
    }
}

impl Drills {
    /// Wraps an inbox, so that these drills affect it. Several inboxes may be wrapped; their
    /// results are in one report.
    #[must_use = "only the returned inbox is affected"]
    pub fn inbox<I: Inbox>(&self, inbox: I) -> DrilledInbox<I> {
        DrilledInbox {
            inner: inbox,
            drills: self.clone(),
        }
    }
}

impl<I: Inbox> Inbox for DrilledInbox<I> {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(self.drilled(key, self.inner.claim(key)))
    }

    fn claim_without_transaction<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(self.drilled(key, self.inner.claim_without_transaction(key)))
    }

    fn transaction_type(&self) -> Option<TypeId> {
        self.inner.transaction_type()
    }

    fn batches(&self) -> Option<&dyn BatchInbox> {
        self.inner.batches().map(|_| self as &dyn BatchInbox)
    }

    fn sent(&self, key: &InboxKey) {
        self.inner.sent(key);
    }

    fn forgotten_before_ms(&self) -> Option<i64> {
        self.inner.forgotten_before_ms()
    }
}

impl<I: Inbox> DrilledInbox<I> {
    /// Claims a delivery through the store's faults, and wraps a fresh claim.
    async fn drilled(
        &self,
        key: &InboxKey,
        claim: impl Future<Output = Result<Claimed, InboxError>>,
    ) -> Result<Claimed, InboxError> {
        self.drills.store().await?;
        let claimed = claim.await?;
        self.drills.state.claims.fetch_add(1, Ordering::Relaxed);
        let inner = match claimed {
            Claimed::Fresh(inner) => inner,
            duplicate => {
                self.drills.record().suppressed(key);
                return Ok(duplicate);
            }
        };
        let attempt = self.drills.record().started(key);
        self.drills.crash_if_at(CrashPoint::BeforeEffect);
        Ok(Claimed::Fresh(Box::new(DrilledClaim {
            inner,
            key: key.clone(),
            attempt,
            drills: self.drills.clone(),
        })))
    }
}

/// A claim whose completion is subject to the drills. The order in [`Claim::complete`] is that of
/// the crash points: the commit is refused before the store has it, and its answer is lost after.
struct DrilledClaim {
    inner: Box<dyn Claim>,
    key: InboxKey,
    attempt: u32,
    drills: Drills,
}

impl Claim for DrilledClaim {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        self.inner.transaction()
    }

    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        Box::pin(async move {
            let Self {
                inner,
                key,
                attempt,
                drills,
            } = *self;
            drills.crash_if_at(CrashPoint::BeforeCommit);
            if drills.state.committing.load(Ordering::Relaxed) > 0 {
                drills.crash_if_at(CrashPoint::InGroup);
            }
            drills.store().await?;
            let id = (&key.source, &key.id, attempt);
            if drills.applies_to(drills.plan.refused, ("refused", id)) {
                inner.abandon().await?;
                drills.record().refused(&key);
                return Err(drilled("the commit is refused"));
            }
            drills.state.committing.fetch_add(1, Ordering::Relaxed);
            let completed = inner.complete(published).await;
            drills.state.committing.fetch_sub(1, Ordering::Relaxed);
            let unsent = completed?;
            drills.record().completed(&key);
            drills.crash_if_at(CrashPoint::AfterCommit);
            if drills.applies_to(drills.plan.lost, ("lost", id)) {
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
