//! The operations that group commit needs of a store.

use super::collision::Cause;
use super::contention::Level;
use super::transaction_handoff::HandedOut;
use crate::event::{ContentDigest, OutgoingRecord};
use crate::inbox::shared::replies;
use crate::inbox::shared::sent_replies::Sent;
use crate::inbox::{InboxError, InboxKey};
use crate::outbox::OutboxError;
use std::any::Any;
use std::error::Error;
use std::future::Future;
use std::time::Duration;

/// The operations of a store with group commit.
///
/// Called by [`Groups`](super::groups::Groups) in the task of a group or batch. For each open
/// transaction one caller at a time uses it, in the order of the methods below. The futures wait
/// for the store. A caller that drops a future drops the transaction too, which rolls it back;
/// `is_silent`, `sent`, `to_handler`, `stage` and `cause` must not block.
pub(in crate::inbox) trait GroupStore: Send + Sync + 'static {
    /// An open transaction. Dropping it rolls it back.
    type Open: Send + 'static;

    /// Creates the handler's argument from an open transaction. Begins a turn: what the handler
    /// writes can be undone alone.
    fn to_handler(handed_out: HandedOut<Self::Open>) -> Box<dyn Any + Send>;

    /// Looks up a delivery; a delivery that is claimed, but not completed, is unknown. Does not
    /// wait for other transactions.
    fn find(&self, key: &InboxKey) -> impl Future<Output = Result<Known, InboxError>> + Send;

    /// Begins a transaction. The claims are taken from the queue after it, so those that arrive
    /// meanwhile share the transaction.
    fn begin(&self) -> impl Future<Output = Result<Self::Open, InboxError>> + Send;

    /// Claims these distinct keys in a transaction that has just begun, at this level. Returns the
    /// store's knowledge of each key. May wait for other owners of a key, but not for ever.
    fn claim(
        &self,
        open: Self::Open,
        keys: &[InboxKey],
        level: Level,
    ) -> impl Future<Output = Result<(Self::Open, Vec<Known>), InboxError>> + Send;

    /// Claims the keys of a batch like [`GroupStore::claim`]. The transaction has a single turn:
    /// [`GroupStore::keep_turn`] and [`GroupStore::undo_turn`] are not called for it, so a store
    /// may leave out what only they need.
    fn claim_batch(
        &self,
        open: Self::Open,
        keys: &[InboxKey],
        level: Level,
    ) -> impl Future<Output = Result<(Self::Open, Vec<Known>), InboxError>> + Send {
        self.claim(open, keys, level)
    }

    /// Ends a turn: its writes are kept, and later writes can be undone alone. Fails if the
    /// transaction is known to be unusable; [`GroupStore::prepare`] finds what is not known yet.
    /// Both fail with [`InboxError::Transaction`] if the handler of this turn is the cause, and
    /// with [`InboxError::TryAgain`] if it may be the handler of an earlier one.
    fn keep_turn(
        &self,
        open: &mut Self::Open,
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Keeps the published events of a delivery that succeeded, to be written by
    /// [`GroupStore::prepare`]. Returns the events that its caller must publish. Must not block.
    fn stage(
        &self,
        open: &mut Self::Open,
        key: &InboxKey,
        published: Vec<OutgoingRecord>,
    ) -> Vec<OutgoingRecord>;

    /// Undoes the writes and the published events of the present turn, and this claim.
    fn undo_turn(
        &self,
        open: &mut Self::Open,
        key: &InboxKey,
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Releases these claims, and keeps all other writes. If a handler ended the transaction, rows
    /// that another owner committed meanwhile stay as they are.
    fn release_claims(
        &self,
        open: &mut Self::Open,
        keys: &[InboxKey],
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Writes the published events and makes the transaction ready to be committed. Fails, and
    /// writes nothing that lasts, if it is not the one in which the claims were made.
    fn prepare(&self, open: &mut Self::Open)
    -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Commits a transaction after [`GroupStore::prepare`].
    fn commit(&self, open: Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Checks that the store answers. Called when a handler has had a transaction for
    /// [`RECALL_AFTER`], because its own statements may never be answered. An error means that it
    /// does not answer.
    fn check(&self) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Whether the store failed to answer when it was last used. A group that fails then answers
    /// all waiting claims with its error, which need not find out one after the other.
    fn is_silent(&self) -> bool;

    /// Deliveries whose replies are to be deleted.
    fn sent(&self) -> &Sent;

    /// Deletes the published events of these completed deliveries.
    fn forget_replies(
        &self,
        keys: &[InboxKey],
    ) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Ends a transaction that has nothing to commit. An error is reported like one of the commit,
    /// and the transaction is gone in any case.
    fn roll_back(&self, open: Self::Open) -> impl Future<Output = Result<(), InboxError>> + Send;

    /// Whether an error shows that another transaction was in the way, and how. `open` is the
    /// transaction in which a handler received the error; without one it is an error of this store.
    fn cause(open: Option<&Self::Open>, error: &(dyn Error + 'static)) -> Option<Cause>;
}

/// How long a handler has a transaction before the store is checked, and the interval of further
/// checks.
pub(super) const RECALL_AFTER: Duration = Duration::from_secs(3);

/// The store's knowledge of a key when it was claimed.
pub(in crate::inbox) enum Known {
    /// None: the key is claimed now.
    Nothing,
    /// It was completed, with these events left to publish. They cannot be read if another program
    /// wrote them.
    Completed(Result<Vec<OutgoingRecord>, InboxError>),
}

/// The row of a completed delivery.
#[derive(Clone)]
pub(in crate::inbox) struct CompletedRow {
    /// The events left to publish, as stored.
    pub(in crate::inbox) replies: Vec<u8>,
    /// The digest of the event's content, as stored.
    pub(in crate::inbox) content: Option<Vec<u8>>,
}

impl Known {
    /// Interprets the row of `key`.
    pub(in crate::inbox) fn of(key: &InboxKey, row: Option<CompletedRow>) -> Self {
        let Some(row) = row else {
            return Self::Nothing;
        };
        let content = row.content.as_deref().and_then(ContentDigest::from_bytes);
        Self::Completed(match key.is_reused(content) {
            true => Err(InboxError::Reused),
            false => replies::decode(&row.replies),
        })
    }

    /// Interprets the rows of several keys, in their order.
    pub(in crate::inbox) fn of_all(
        keys: &[InboxKey],
        rows: Vec<Option<CompletedRow>>,
    ) -> Vec<Self> {
        let of_each = keys.iter().zip(rows);
        of_each.map(|(key, row)| Self::of(key, row)).collect()
    }
}

/// Maps an error of the outbox in the same store; `failed` maps errors of the store. The outbox's
/// write is part of the delivery's transaction, so an error of the database is treated as one of
/// the inbox's own statements.
pub(in crate::inbox) fn of_outbox(
    error: OutboxError,
    failed: impl FnOnce(sqlx::Error) -> InboxError,
) -> InboxError {
    match error {
        OutboxError::Store { source, .. } => failed(source),
        silent @ OutboxError::NoAnswer { .. } => InboxError::Unavailable(silent.into()),
        other => InboxError::Other(other.into()),
    }
}
