//! The transaction that a handler writes its effect through.
//!
//! Owns the transaction while it is open. Knows none of the tables.

use super::write_lock_queue::WriteTurn;
use crate::inbox::group_commit::HandedOut;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use std::ops::{Deref, DerefMut};

/// A write transaction and its turn. Dropping it queues the rollback at once, then ends the turn.
pub(super) struct Held {
    pub(super) transaction: WriteTransaction,
    pub(super) turn: WriteTurn,
    /// Whether its commit contains events for the outbox's relay.
    pub(super) has_published: bool,
}

impl Held {
    /// Commits, then ends the turn, in this order: the next writer must find the lock free.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self {
            transaction, turn, ..
        } = self;
        let committed = transaction.commit().await;
        drop(turn);
        committed
    }

    /// Rolls back, then ends the turn.
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
/// It commits with the inbox row when the handler succeeds, together with the transactions of other
/// events that were ready at the same time: each handler has it in turn, under a savepoint.
/// Dropping it returns it to the claim, so a handler takes it by value and drops it at its end. If
/// a handler moves it into a task that outlives the handler, the completion fails and nothing is
/// committed. `COMMIT` in SQL is refused, and after a `ROLLBACK` the completion fails. Savepoints
/// (`Connection::begin` on it) are allowed.
///
/// While it lives, every other writer of the store waits: await nothing but the store.
///
/// ```no_run
/// use evenkeel::event::Record;
/// use evenkeel::handler::{HandlerError, Router};
/// use evenkeel::inbox::SqliteTx;
///
/// async fn count(_: Record, mut tx: SqliteTx) -> Result<(), HandlerError> {
///     sqlx::query("UPDATE counter SET records = records + 1").execute(&mut *tx).await?;
///     Ok(())
/// }
///
/// let router = Router::new().raw(count);
/// ```
pub struct SqliteTx(HandedOut<Held>);

impl SqliteTx {
    pub(super) fn new(handed_out: HandedOut<Held>) -> Self {
        Self(handed_out)
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

/// A write transaction of the store.
pub(super) type WriteTransaction = Transaction<'static, Sqlite>;
