//! The transaction that a handler writes its effect through.

use crate::inbox::group_commit::HandedOut;
use crate::inbox::shared::staged_events::StagedEvents;
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::AtomicBool;

/// An open transaction of the store. Dropping it rolls it back before the connection is used again.
pub(super) struct Open {
    pub(super) transaction: Transaction<'static, Postgres>,
    /// Whether it has a single turn, that of an event or of a batch: it then needs no savepoint.
    pub(super) is_single: bool,
    /// Whether its handlers wait for a lock only briefly.
    pub(super) has_short_timeout: bool,
    /// Whether something was written since the last savepoint: a handler had it, or a claim was
    /// undone. Without that the savepoint serves the next turn too.
    pub(super) is_used: bool,
    /// Whether a statement that a handler prepared on its connection fails until it is prepared
    /// again.
    pub(super) has_outdated_plan: AtomicBool,
    /// What its handlers published.
    pub(super) staged: StagedEvents,
}

/// The turns of a transaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turns {
    /// Each delivery has its own, under a savepoint.
    OneForEach,
    /// All deliveries have one, that of their batch.
    OneForAll,
}

impl Open {
    /// A transaction that has just begun.
    pub(super) fn new(transaction: Transaction<'static, Postgres>) -> Self {
        Self {
            transaction,
            is_single: false,
            has_short_timeout: false,
            is_used: false,
            has_outdated_plan: AtomicBool::new(false),
            staged: StagedEvents::default(),
        }
    }

    /// Forgets the prepared statements of the connection if one of them is outdated: the driver
    /// would use it again.
    pub(super) async fn forget_outdated_plans(&mut self) -> Result<(), sqlx::Error> {
        match std::mem::take(self.has_outdated_plan.get_mut()) {
            true => self.transaction.clear_cached_statements().await,
            false => Ok(()),
        }
    }
}

/// The transaction that a handler writes its effect through; dereferences to [`PgConnection`].
///
/// It commits with the inbox row when the handler succeeds, together with the transactions of other
/// events that were ready at the same time: each handler has it in turn, under a savepoint.
/// Dropping it returns it to the claim, so a handler takes it by value and drops it at its end. If
/// a handler moves it into a task that outlives the handler, the completion fails and nothing is
/// committed. `COMMIT` in SQL is refused, and after a `ROLLBACK` the completion fails. Savepoints
/// (`Connection::begin` on it) are allowed.
///
/// While it lives, the other deliveries of its group wait, and so do transactions that need the
/// rows it changed. Await nothing but the store, and write to the store by no other connection:
/// that connection could wait for the group for ever. Settings of the transaction (`SET LOCAL`, an
/// advisory lock) last until the commit, for the later events of the group too.
///
/// ```no_run
/// use evenkeel::event::Record;
/// use evenkeel::handler::{HandlerError, Router};
/// use evenkeel::inbox::PostgresTx;
///
/// async fn count(_: Record, mut tx: PostgresTx) -> Result<(), HandlerError> {
///     sqlx::query("UPDATE counter SET records = records + 1").execute(&mut *tx).await?;
///     Ok(())
/// }
///
/// let router = Router::new().raw(count);
/// ```
pub struct PostgresTx(HandedOut<Open>);

impl PostgresTx {
    pub(super) fn new(handed_out: HandedOut<Open>) -> Self {
        Self(handed_out)
    }
}

impl Deref for PostgresTx {
    type Target = PgConnection;

    fn deref(&self) -> &Self::Target {
        &self.0.transaction
    }
}

impl DerefMut for PostgresTx {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0.transaction
    }
}

impl std::fmt::Debug for PostgresTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresTx").finish_non_exhaustive()
    }
}
