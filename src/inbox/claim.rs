//! The traits of an idempotency store: claims of deliveries, one by one and in batches.

use super::{InboxError, InboxKey};
use crate::event::OutgoingRecord;
use std::any::{Any, TypeId};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Bounds the claims of one statement: with more, SQLite would need more placeholders than it
/// accepts.
pub(crate) const CLAIMS_MAX: u32 = 2_000;

/// A boxed future, the return type of the methods of these traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An idempotency store: it knows the completed deliveries and hands out claims of the others.
///
/// The router calls it for every delivery, in the worker's task that drives the handler or in the
/// task of a batch. The returned futures wait for the store. They may be dropped at any time, for
/// example when an attempt times out or a partition is revoked; a dropped claim is abandoned. The
/// methods without a future must not block. `inbox::conformance` holds the contract as an
/// executable suite (feature `testing`).
///
/// # Contract
/// - At most one open claim per key, across all processes that share the store. A concurrent claim
///   waits for the end of the first, or fails as unavailable; it is never fresh beside it. Claims
///   by [`Inbox::claim_without_transaction`] may be exempt.
/// - A delivery is completed by [`Claim::complete`] alone, and stays completed until the store
///   forgets it.
/// - A claim that ends without a completion leaves no trace: the next claim is fresh.
/// - A duplicate returns the same unsent events, in the same order, until [`Inbox::sent`].
/// - The handler's timeout does not cover the wait for a claim: a store whose other owners may
///   crash or hang bounds that wait itself.
///
/// # Examples
/// Using a store:
/// ```no_run
/// use evenkeel::handler::Router;
/// use evenkeel::inbox::MemoryInbox;
///
/// let router = Router::new().with_inbox(MemoryInbox::default());
/// ```
///
/// Implementing one. This sketch remembers keys until the process ends. It leaves out what the
/// contract asks of a real store: waiting for an open claim, and keeping the unsent events.
/// ```
/// use evenkeel::event::OutgoingRecord;
/// use evenkeel::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey};
/// use std::any::Any;
/// use std::collections::HashSet;
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Clone, Default)]
/// struct SetInbox(Arc<Mutex<HashSet<InboxKey>>>);
///
/// struct SetClaim(SetInbox, InboxKey);
///
/// impl Inbox for SetInbox {
///     fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
///         Box::pin(async move {
///             let is_known = self.0.lock().expect("not poisoned").contains(key);
///             Ok(match is_known {
///                 true => Claimed::Duplicate { unsent: Vec::new() },
///                 false => Claimed::Fresh(Box::new(SetClaim(self.clone(), key.clone()))),
///             })
///         })
///     }
///
///     fn sent(&self, _: &InboxKey) {}
/// }
///
/// impl Claim for SetClaim {
///     fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
///         None
///     }
///
///     fn complete(
///         self: Box<Self>,
///         published: Vec<OutgoingRecord>,
///     ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
///         let Self(inbox, key) = *self;
///         inbox.0.lock().expect("not poisoned").insert(key);
///         Box::pin(async move { Ok(published) })
///     }
///
///     fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
///         Box::pin(async { Ok(()) })
///     }
/// }
/// ```
pub trait Inbox: Send + Sync + 'static {
    /// Claims a delivery. May wait for a concurrent claim of the same key to end. Called for a
    /// handler that names the store's transaction, and by default for all others.
    ///
    /// # Errors
    /// [`InboxError::Reused`] if the key's content differs from that of the completed delivery,
    /// otherwise the store's error. After an error nothing is claimed.
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>>;
    /// Claims a delivery whose handler names no transaction. The store holds nothing while the
    /// handler runs, so the handler may take long and may write to the same store by other
    /// connections. If another owner claims the same delivery meanwhile, both are fresh, and the
    /// events published by the second are dropped. Default: [`Inbox::claim`], for stores whose
    /// claims block no others.
    ///
    /// # Errors
    /// The errors of [`Inbox::claim`].
    fn claim_without_transaction<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        self.claim(key)
    }
    /// The type of transaction that claims hand to handlers, checked when a consumer is built: a
    /// handler that names another type is refused there, not at its first delivery. Must be
    /// constant. Default: none.
    fn transaction_type(&self) -> Option<TypeId> {
        None
    }
    /// Support for claims of several deliveries in one transaction. Default: none. A batch
    /// handler's deliveries are then claimed one by one, and a batch has one delivery only if a
    /// claim hands out a transaction.
    fn batches(&self) -> Option<&dyn BatchInbox> {
        None
    }
    /// The brokers acknowledged the events that the delivery's completion left to publish. The
    /// store no longer needs to keep them, and later duplicates publish nothing. Called after each
    /// publish of the events of [`Claim::complete`] or [`Claimed::Duplicate`]. Must not block: a
    /// store deletes them later. If the process ends before that, a duplicate publishes them once
    /// more.
    fn sent(&self, key: &InboxKey);
    /// The time in milliseconds since the epoch before which completions may have been forgotten:
    /// an older record is claimed as fresh even if it was completed. `None` if nothing is
    /// forgotten, as far as this process knows; it detects purges by other processes within a
    /// minute, while it claims. Called for every delivery; must not block. Default: `None`.
    ///
    /// Events older than this are handled and counted as possible duplicates
    /// (`evenkeel_duplicates_possible_total`).
    fn forgotten_before_ms(&self) -> Option<i64> {
        None
    }
}

/// The inbox's answer to a claim. Exhaustive on purpose: a caller must know how to treat each
/// answer.
pub enum Claimed {
    /// Never completed before: handle the delivery, then complete or abandon the claim.
    Fresh(Box<dyn Claim>),
    /// Completed before: do not handle the delivery again.
    Duplicate {
        /// The events that its completion left to publish, in order. Publish them again: the
        /// process that completed the delivery may have ended before the brokers acknowledged them.
        unsent: Vec<OutgoingRecord>,
    },
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh(_) => f.write_str("Fresh(..)"),
            Self::Duplicate { unsent } => f
                .debug_struct("Duplicate")
                .field("unsent", &unsent.len())
                .finish(),
        }
    }
}

/// A claimed delivery. Dropping it abandons it.
///
/// The router ends a claim exactly once, by [`complete`](Claim::complete),
/// [`abandon`](Claim::abandon), [`fail`](Claim::fail) or a drop. If the future of `complete` is
/// dropped, the delivery is either completed or fresh again; the next claim reports which.
///
/// All methods are called in the task that drives the handler. A drop may happen in any task, also
/// while the runtime shuts down: it must neither block nor panic, and work that remains, such as a
/// rollback, runs in a task of the store.
///
/// # Examples
/// What the router does for one delivery:
/// ```
/// use evenkeel::inbox::{Claimed, Inbox, InboxError, InboxKey};
///
/// async fn handle(inbox: &dyn Inbox, key: &InboxKey) -> Result<(), InboxError> {
///     let Claimed::Fresh(mut claim) = inbox.claim(key).await? else {
///         return Ok(()); // A duplicate: the handler is not called.
///     };
///     let transaction = claim.transaction();
///     // The handler writes through the transaction, and publishes nothing.
///     drop(transaction);
///     claim.complete(Vec::new()).await?;
///     inbox.sent(key);
///     Ok(())
/// }
/// ```
pub trait Claim: Send {
    /// Takes the transaction for the handler; `None` on further calls, or if the store has no
    /// transactions. Called once, before the handler, and must not block. The handler returns the
    /// value by dropping it.
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>>;
    /// Records the delivery as completed together with its handler's published events, and commits
    /// the effect. Returns the events that the caller must publish now; none if the store publishes
    /// them itself, through an outbox.
    ///
    /// Called after the handler succeeded. Returns only when the completion survives a crash, as
    /// far as the store promises that.
    ///
    /// # Errors
    /// [`InboxError::Transaction`] if the handler still holds the transaction or has ended it,
    /// [`InboxError::Lost`] if another owner took the delivery, otherwise the store's error. After
    /// an error the delivery may be completed all the same, if the store did not answer; the next
    /// claim reports it.
    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>>;
    /// Abandons the claim: the effect is undone, and the next delivery is fresh. Called when the
    /// handler did not succeed and its outcome is no retry.
    ///
    /// # Errors
    /// The store's error. The caller logs it and continues: the store releases the claim later, by
    /// a rollback or by the end of a lease.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>>;
    /// Abandons the claim after the handler failed with this error. Returns true if the error shows
    /// that another transaction was in the way, as in a deadlock. The event did not cause it, so
    /// the delivery is claimed again at once and no attempt is counted. A store without
    /// transactions has no such errors. Default: [`Claim::abandon`] and false.
    fn fail(
        self: Box<Self>,
        _error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let abandoned = self.abandon();
        Box::pin(async move { abandoned.await.map(|()| false) })
    }

    /// Ready when the store stopped answering while the handler has the transaction: the handler's
    /// statements may then never end. The router drops the handler, then the claim. Polled whenever
    /// the handler is pending; registers the waker and must not block. A store that hands out no
    /// transaction never recalls one. Default: pending.
    ///
    /// A store checks at its own pace, so that a hanging server is found after seconds and not by
    /// the handler's timeout.
    fn poll_recalled(&mut self, _: &mut Context<'_>) -> Poll<InboxError> {
        Poll::Pending
    }
}

/// An inbox that claims several deliveries in one transaction.
/// [`Inbox::batches`](super::Inbox::batches) returns it.
///
/// Called in the task of a batch, for a batch handler that names the store's transaction. The same
/// rules for blocking and cancellation as for [`Inbox`] apply.
///
/// # Examples
/// What the router does for a batch:
/// ```
/// use evenkeel::inbox::{ClaimedBatch, Inbox, InboxError, InboxKey};
///
/// async fn handle(inbox: &dyn Inbox, keys: &[InboxKey]) -> Result<(), InboxError> {
///     let Some(batches) = inbox.batches() else {
///         return Ok(()); // Each delivery is claimed by itself.
///     };
///     let ClaimedBatch { known, claim } = batches.claim_batch(keys).await?;
///     if let Some(mut claim) = claim {
///         let transaction = claim.transaction();
///         // The handler writes through the transaction, and publishes nothing.
///         drop(transaction);
///         let fresh = known.iter().filter(|known| known.is_none()).count();
///         claim.complete(vec![Some(Vec::new()); fresh]).await?;
///     }
///     Ok(())
/// }
/// ```
pub trait BatchInbox: Send + Sync {
    /// Claims deliveries with distinct keys in one transaction. May wait for concurrent claims of
    /// the same keys to end, but not for ever: two batches must never wait for each other. Claiming
    /// all keys in one fixed order achieves that.
    ///
    /// # Errors
    /// The errors of [`Inbox::claim`], except that a reused id is no error of the batch: it is an
    /// [`InboxError::Reused`] in [`ClaimedBatch::known`]. After an error no delivery is claimed.
    fn claim_batch<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<ClaimedBatch, InboxError>>;
}

/// The inbox's answer to a batch. A store builds it field by field, so it is exhaustive.
pub struct ClaimedBatch {
    /// One entry per key, in order: `None` if it is claimed now. For a delivery that was completed
    /// before, the events that its completion left to publish; they must be published again.
    pub known: Vec<Option<Result<Vec<OutgoingRecord>, InboxError>>>,
    /// The claim of the fresh deliveries; `None` if there are none.
    pub claim: Option<Box<dyn BatchClaim>>,
}

impl fmt::Debug for ClaimedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fresh = self.known.iter().filter(|known| known.is_none()).count();
        f.debug_struct("ClaimedBatch")
            .field("deliveries", &self.known.len())
            .field("fresh", &fresh)
            .finish_non_exhaustive()
    }
}

/// Deliveries claimed in one transaction. Dropping the claim abandons them all.
///
/// Ended exactly once, like a [`Claim`], and under the same rules for drops and blocking.
pub trait BatchClaim: Send {
    /// Takes the transaction for the handler; `None` on further calls.
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>>;
    /// Commits the handler's writes. `published` holds an entry for each fresh delivery, in order:
    /// its published events, or `None` if it failed. A failed delivery is fresh again, but its
    /// writes are kept, because the transaction is committed as a whole. If all deliveries failed,
    /// everything is undone.
    ///
    /// Returns, for each delivery that did not fail, the events that the caller must publish now.
    /// After an error no delivery is completed.
    ///
    /// # Errors
    /// [`InboxError::Transaction`] if the handler still holds the transaction or has ended it,
    /// otherwise the store's error.
    fn complete(
        self: Box<Self>,
        published: Vec<Option<Vec<OutgoingRecord>>>,
    ) -> BoxFuture<'static, Result<Vec<Vec<OutgoingRecord>>, InboxError>>;
    /// Abandons all deliveries: everything is undone, and the next delivery of each is fresh.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>>;
    /// Abandons all deliveries after the handler failed with this error. Returns true if another
    /// transaction was in the way, like [`Claim::fail`](super::Claim::fail).
    fn fail(
        self: Box<Self>,
        _error: &(dyn Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let abandoned = self.abandon();
        Box::pin(async move { abandoned.await.map(|()| false) })
    }

    /// Ready when the store stopped answering, like
    /// [`Claim::poll_recalled`](super::Claim::poll_recalled).
    fn poll_recalled(&mut self, _: &mut Context<'_>) -> Poll<InboxError> {
        Poll::Pending
    }
}
