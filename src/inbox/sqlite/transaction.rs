//! What a handler writes its effect through.
//!
//! Owns the transaction while it is open. Knows none of the tables.

use super::{WriteTransaction, turn::Turn};
use crate::inbox::group::Lent;
use sqlx::SqliteConnection;
use std::ops::{Deref, DerefMut};

/// A write transaction and the turn it is written in. Dropping it queues the rollback at once, then ends the turn.
pub(super) struct Held {
    pub(super) transaction: WriteTransaction,
    pub(super) turn: Turn,
    /// Whether its commit has something for the outbox's relay.
    pub(super) has_published: bool,
}

impl Held {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self {
            transaction, turn, ..
        } = self;
        let committed = transaction.commit().await;
        drop(turn);
        committed
    }

    pub(super) async fn roll_back(self) -> Result<(), sqlx::Error> {
        let Self {
            transaction, turn, ..
        } = self;
        let rolled_back = transaction.rollback().await;
        drop(turn);
        rolled_back
    }
}

/// The transaction that a handler writes its effect through; dereferences to [`SqliteConnection`].
///
/// It commits with the inbox row when the handler succeeds, together with those of other events that were ready at the time:
/// each has it in turn, under a savepoint. Dropping it hands it back, so a handler takes it by value and lets it go at its
/// end; one that moves it into a task which outlives the handler makes the completion fail and commits nothing of it. `COMMIT`
/// in SQL is refused, and after a `ROLLBACK` the completion fails. Savepoints (`Connection::begin` on it) are fine.
///
/// While it lives, every other writer of the store waits: do not await anything but the store.
pub struct SqliteTx(Lent<Held>);

impl SqliteTx {
    pub(super) fn new(lent: Lent<Held>) -> Self {
        Self(lent)
    }
}

impl Deref for SqliteTx {
    type Target = SqliteConnection;

    fn deref(&self) -> &Self::Target {
        &self.0.transaction
    }
}

impl DerefMut for SqliteTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.transaction
    }
}

impl std::fmt::Debug for SqliteTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteTx").finish_non_exhaustive()
    }
}
