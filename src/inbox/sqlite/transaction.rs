//! The transaction on its way from the claim to the handler and back.
//!
//! Owns who has the transaction. Knows none of the tables.

use super::{SqliteInbox, WriteTransaction, error, now_ms, store, turn::Turn};
use crate::event::OutgoingRecord;
use crate::inbox::{BoxFuture, Claim, InboxError, InboxKey, replies};
use sqlx::SqliteConnection;
use std::any::Any;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A write transaction and the turn it is written in. Dropping it queues the rollback at once, then ends the turn.
pub(super) struct Held {
    pub(super) transaction: WriteTransaction,
    pub(super) turn: Turn,
}

impl Held {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self { transaction, turn } = self;
        let committed = transaction.commit().await;
        drop(turn);
        committed
    }

    pub(super) async fn roll_back(self) -> Result<(), sqlx::Error> {
        let Self { transaction, turn } = self;
        let rolled_back = transaction.rollback().await;
        drop(turn);
        rolled_back
    }
}

/// The transaction that a handler writes its effect through; dereferences to [`SqliteConnection`].
///
/// It commits with the inbox row when the handler succeeds. Dropping it hands it back, so a handler takes it by value and
/// lets it go at its end; one that moves it into a task which outlives the handler makes the completion fail and commits
/// nothing. Do not commit or roll back in SQL: the completion sees it and fails. Savepoints (`Connection::begin` on it)
/// are fine.
///
/// While it lives, every other writer of the store waits: do not await anything but the store.
pub struct SqliteTx {
    /// Present until it is dropped.
    held: Option<Held>,
    slot: Slot,
}

/// Where the transaction is while the claim lives.
type Slot = Arc<Mutex<Place>>;

enum Place {
    /// With the claim.
    Home(Box<Held>),
    /// With the handler.
    Lent,
    /// The claim has ended: what comes home now is rolled back.
    Ended,
}

fn lock(slot: &Slot) -> MutexGuard<'_, Place> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SqliteTx {
    fn drop(&mut self) {
        let mut place = lock(&self.slot);
        if let (Some(held), Place::Lent) = (self.held.take(), &*place) {
            *place = Place::Home(Box::new(held));
        }
    }
}

const PRESENT: &str = "a SqliteTx has its transaction until it is dropped";

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &Self::Target {
        &self.held.as_ref().expect(PRESENT).transaction
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.held.as_mut().expect(PRESENT).transaction
    }
}

impl std::fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}

/// A claimed delivery, with the transaction that its row was inserted in.
pub(super) struct SqliteClaim {
    inbox: SqliteInbox,
    key: InboxKey,
    slot: Slot,
}

impl SqliteClaim {
    pub(super) fn new(inbox: SqliteInbox, key: InboxKey, held: Held) -> Self {
        let slot = Arc::new(Mutex::new(Place::Home(Box::new(held))));
        Self { inbox, key, slot }
    }

    /// Ends the claim and takes the transaction, if it is home.
    fn end(&self) -> Option<Held> {
        match std::mem::replace(&mut *lock(&self.slot), Place::Ended) {
            Place::Home(held) => Some(*held),
            Place::Lent | Place::Ended => None,
        }
    }

    async fn commit(
        &self,
        mut held: Held,
        published: Vec<OutgoingRecord>,
    ) -> Result<Vec<OutgoingRecord>, InboxError> {
        let failed = |error| self.inbox.failed("complete", error);
        let replies = replies::encode(&published);
        let completed = store::complete(&mut held.transaction, &self.key, &replies, now_ms())
            .await
            .map_err(|error| match error::is_missing_savepoint(&error) {
                true => ended_by_hand(error),
                false => failed(error),
            })?;
        if !completed {
            return Err(ended_by_hand("its inbox row is gone"));
        }
        held.commit().await.map_err(failed)?;
        Ok(published)
    }
}

impl Drop for SqliteClaim {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Claim for SqliteClaim {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        let mut place = lock(&self.slot);
        match std::mem::replace(&mut *place, Place::Lent) {
            Place::Home(held) => Some(Box::new(SqliteTx {
                held: Some(*held),
                slot: self.slot.clone(),
            })),
            other => {
                *place = other;
                None
            }
        }
    }

    fn complete(
        self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        Box::pin(async move {
            match self.end() {
                Some(held) => self.commit(held, published).await,
                None => Err(InboxError::Transaction {
                    reason: "the handler still holds it, in a task that outlives the handler or in a value it kept: \
                             drop it before the handler returns; nothing was committed"
                        .to_owned(),
                }),
            }
        })
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(async move {
            match self.end() {
                Some(held) => held.roll_back().await.map_err(ended_by_hand),
                // The handler's transaction is rolled back when the handler lets it go.
                None => Ok(()),
            }
        })
    }
}

fn ended_by_hand(cause: impl std::fmt::Display) -> InboxError {
    InboxError::Transaction {
        reason: format!(
            "the handler (or SQLite, for a full disk) ended it before its completion ({cause}): leave COMMIT and ROLLBACK \
             to evenkeel; what was committed by hand stays, and the event is handled again"
        ),
    }
}
