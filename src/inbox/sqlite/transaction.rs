//! The transaction that a handler writes its effect through.
//!
//! Owns the transaction while it is open, and the savepoints of its handlers. Knows none of the
//! tables.
//!
//! # Savepoints
//! A savepoint is sent to the connection's thread just before the handler starts, and nobody waits
//! for its answer: the thread executes it before the handler's first statement. An answer that
//! nobody reads may hide a failure, so two rules keep it harmless:
//! - Each savepoint has a name of its own. An undo names the savepoint of its turn and fails if it
//!   was not set; it never undoes the turns before.
//! - Outside of a transaction, a savepoint would begin one and its release would commit it. The
//!   [`CommitGuard`] refuses that commit, and [`Held::is_intact`] finds the rollback before the
//!   store commits. Which handler caused it is only known if no other had the transaction
//!   ([`Held::is_shared`]).

use super::commit_guard::CommitGuard;
use super::statements;
use super::write_lock_queue::WriteTurn;
use crate::inbox::group_commit::HandedOut;
use crate::inbox::shared::staged_events::StagedEvents;
use sqlx::{Sqlite, SqliteConnection, Transaction};
use std::ops::{Deref, DerefMut};

/// A write transaction and its turn. Dropping it queues the rollback at once, then ends the turn.
pub(super) struct Held {
    pub(super) transaction: WriteTransaction,
    turn: WriteTurn,
    /// What its handlers published.
    pub(super) staged: StagedEvents,
    /// The number of its last savepoint; 0 before the first.
    savepoint: u32,
    /// Whether that savepoint belongs to the present turn.
    has_savepoint: bool,
    commit_guard: CommitGuard,
}

impl Held {
    /// A transaction that has just begun.
    pub(super) fn new(
        transaction: WriteTransaction,
        turn: WriteTurn,
        commit_guard: &CommitGuard,
    ) -> Self {
        commit_guard.begin();
        Self {
            transaction,
            turn,
            staged: StagedEvents::default(),
            savepoint: 0,
            has_savepoint: false,
            commit_guard: commit_guard.clone(),
        }
    }

    /// Sets the savepoint of a handler that is about to have the transaction. Does not wait for it.
    pub(super) fn begin_turn(&mut self) {
        self.savepoint += 1;
        self.has_savepoint = true;
        statements::send_savepoint(&mut self.transaction, self.savepoint);
    }

    /// Keeps the writes of the present turn. Returns false if the transaction is known to be rolled
    /// back. A statement that nobody waits for may still do that.
    pub(super) fn keep_turn(&mut self) -> bool {
        if !self.commit_guard.is_intact() {
            return false;
        }
        self.has_savepoint = false;
        self.staged.keep_turn();
        true
    }

    /// Ends a turn that is to be undone. Returns the number of its savepoint; none if no handler
    /// had the transaction.
    pub(super) fn undo_turn(&mut self) -> Option<u32> {
        self.staged.undo_turn();
        std::mem::take(&mut self.has_savepoint).then_some(self.savepoint)
    }

    /// Whether the handler of an earlier turn had the transaction. It may have ended it: by a
    /// statement that is executed during a later turn, because the handler did not wait for it.
    pub(super) fn is_shared(&self) -> bool {
        self.savepoint > u32::from(self.has_savepoint)
    }

    /// Whether the transaction is still the one that the store began, after all statements that were
    /// answered.
    pub(super) fn is_intact(&self) -> bool {
        self.commit_guard.is_intact()
    }

    /// Commits, then ends the turn, in this order: the next writer must find the lock free.
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        let Self {
            transaction,
            turn,
            commit_guard,
            ..
        } = self;
        commit_guard.allow_commit();
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
/// committed. `COMMIT` in SQL is refused and rolls back; after it, or after a `ROLLBACK`, the
/// completion fails. Savepoints (`Connection::begin` on it) are allowed. The connection's commit
/// hook and rollback hook are in use: do not replace them.
///
/// While it lives, every other writer of the store waits: await nothing but the store. A statement
/// that was sent is executed to its end, even if the handler stops waiting for it (`timeout`,
/// `select!`). The statements of the next handler wait behind it, within that handler's deadline.
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
