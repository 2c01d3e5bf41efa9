//! Idempotency: an event's inbox row and its effect commit together, so a redelivery is a no-op.

pub(crate) mod address;
mod batch;
pub mod completions;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod digest;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod failure;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod group;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod horizon;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis", feature = "sqlite"))]
mod replies;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use batch::{BatchClaim, BatchInbox, ClaimedBatch};
pub use completions::{Completion, Completions};
pub use memory::MemoryInbox;
#[cfg(feature = "postgres")]
pub use postgres::{InboxVersions, Migration, PostgresInbox, PostgresSettings, PostgresTx};
#[cfg(feature = "redis")]
pub use redis::{RedisInbox, RedisSettings};
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::is_busy;
#[cfg(feature = "sqlite")]
pub use sqlite::{Durability, SqliteCompletions, SqliteInbox, SqliteSettings, SqliteTx};

use crate::event::{ContentDigest, OutgoingRecord};
use std::any::{Any, TypeId};
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Claims that are made in one statement at most: for more SQLite would need more placeholders than it takes.
pub(crate) const CLAIMS_MAX: u32 = 2_000;

/// A boxed future, as the port's methods return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What makes a delivery the same one: group, handler, and the event's identity. Keys of one identity are equal, whatever the
/// event says.
#[derive(Debug, Clone)]
pub struct InboxKey {
    /// Consumer group.
    pub group: String,
    /// Handler name; stable across releases.
    pub handler: String,
    /// CloudEvents source.
    pub source: String,
    /// CloudEvents id.
    pub id: String,
    /// What the event says; none where that is not compared. A store keeps it with the completed delivery, and answers
    /// [`InboxError::Reused`] for another one.
    pub content: Option<ContentDigest>,
}

impl InboxKey {
    fn identity(&self) -> [&str; 4] {
        [&self.group, &self.handler, &self.source, &self.id]
    }

    /// Whether the delivery was completed with other content than this one has. What is not known is no other.
    pub(crate) fn is_reused(&self, completed: Option<ContentDigest>) -> bool {
        matches!((self.content, completed), (Some(own), Some(other)) if own != other)
    }
}

impl PartialEq for InboxKey {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for InboxKey {}

impl Hash for InboxKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

/// What the inbox says of a delivery.
pub enum Claimed {
    /// Never completed before: handle it, then complete or abandon the claim.
    Fresh(Box<dyn Claim>),
    /// Completed before: do not handle it again.
    Duplicate {
        /// What its completion left the caller to publish, in order: publish it again, as whoever completed it may have
        /// ended before the brokers had it.
        unsent: Vec<OutgoingRecord>,
    },
}

/// An idempotency store.
pub trait Inbox: Send + Sync + 'static {
    /// Claims a delivery. May wait for a concurrent claim of the same key to end.
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>>;
    /// Claims a delivery whose handler names no transaction: nothing of the store is held while it runs, so that it may take long
    /// and write to the same store by other ways. Where another owner claims the same delivery meanwhile both are fresh, and what
    /// the second published is dropped. A store whose claims hold nothing that others wait for has no need of it.
    fn claim_without_transaction<'a>(
        &'a self,
        key: &'a InboxKey,
    ) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        self.claim(key)
    }
    /// The type of transaction that claims hand to handlers, if any: checked when a consumer is built.
    fn transaction_type(&self) -> Option<TypeId> {
        None
    }
    /// The power to claim several deliveries in one transaction, of a store that has it. Without it a batch handler's
    /// deliveries are claimed one by one, and alone where a claim hands out a transaction.
    fn batches(&self) -> Option<&dyn BatchInbox> {
        None
    }
    /// Completions before this time, in milliseconds since the epoch, may be forgotten by now: a delivery of a record that is
    /// older is claimed as fresh even if it was completed. None where nothing is forgotten, as far as this process knows; it
    /// learns of what other processes purge within a minute, while it claims. Asked for every delivery: it never waits.
    fn forgotten_before_ms(&self) -> Option<i64> {
        None
    }
}

/// A claimed delivery. Dropping it abandons it.
pub trait Claim: Send {
    /// The transaction for the handler, once; none where the store has no transactions.
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>>;
    /// Records the delivery as done together with what its handler published, and commits the effect. Answers with what
    /// the caller has to publish now.
    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>>;
    /// Gives the claim back: the effect is undone, the next delivery is fresh.
    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>>;
    /// The same for a handler that failed with this error. True where the error says that another transaction was in the way, as
    /// in a deadlock: that is not the event's doing, so it is claimed again at once and no attempt is counted. A store without
    /// transactions has no such errors.
    fn fail(
        self: Box<Self>,
        _error: &(dyn std::error::Error + Send + Sync + 'static),
    ) -> BoxFuture<'static, Result<bool, InboxError>> {
        let abandoned = self.abandon();
        Box::pin(async move { abandoned.await.map(|()| false) })
    }

    /// Ready when the store has stopped answering while the handler has the transaction, whose statements may never end: the
    /// handler is dropped, then the claim. Polled whenever the handler is not ready; registers the waker, and waits for nothing.
    /// A store that hands out no transaction never recalls one.
    fn poll_recalled(&mut self, _: &mut Context<'_>) -> Poll<InboxError> {
        Poll::Pending
    }
}

/// What can go wrong with an idempotency store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Busy, locked or not reachable now: the delivery is tried again.
    #[error("the inbox store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing of the delivery was kept, because of another transaction or another delivery in its own: it is claimed again at
    /// once, and no attempt is counted.
    #[error("the inbox store kept nothing of it: {0}")]
    TryAgain(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full, or the file cannot be written.
    #[error("the inbox store cannot be written: {0}")]
    NotWritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store is another group's, or of a newer version.
    #[error("the store {path} {reason}")]
    Foreign {
        /// Which store.
        path: String,
        /// Whose it is and what to do.
        reason: String,
    },
    /// The handler kept, committed or rolled back the transaction of its claim: a mistake in the handler.
    #[error("the inbox transaction was misused: {reason}")]
    Transaction {
        /// What happened and what to do.
        reason: String,
    },
    /// What a delivery published cannot be read back: somebody else wrote to the store.
    #[error("what the delivery published cannot be read from the inbox store: {0}")]
    Replies(#[source] serde_json::Error),
    /// The claim ran out before its completion, and another owner took the delivery: the record is tried again, and is then
    /// a duplicate, or handled again if the other owner failed.
    #[error("the claim was lost: {reason}")]
    Lost {
        /// Why, and what to do.
        reason: String,
    },
    /// The id is another event's: it was completed with other content. Nothing is claimed.
    #[error("the id was completed before, with other content")]
    Reused,
    /// The store's address or a setting cannot be used: which one, and what to do.
    #[error("{0}")]
    Setting(String),
    /// Anything else.
    #[error("the inbox store failed: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
