//! What a handler writes its effect through.

use crate::event::OutgoingRecord;
use crate::inbox::group::Lent;
use sqlx::{PgConnection, Postgres, Transaction};
use std::ops::{Deref, DerefMut};

/// An open transaction of the store.
pub(super) struct Open {
    pub(super) transaction: Transaction<'static, Postgres>,
    /// Whether one event has it for itself: it needs no savepoint then.
    pub(super) is_single: bool,
    /// Whether handlers wait for a lock only briefly in it.
    pub(super) is_hasty: bool,
    /// What was published in it, for the outbox, in order.
    pub(super) staged: Vec<OutgoingRecord>,
    /// How much of that is not undone with the present turn.
    pub(super) staged_before: usize,
}

/// The transaction that a handler writes its effect through; dereferences to [`PgConnection`].
///
/// It commits with the inbox row when the handler succeeds, together with those of other events that were ready at the time:
/// each has it in turn, under a savepoint. Dropping it hands it back, so a handler takes it by value and lets it go at its
/// end; one that moves it into a task which outlives the handler makes the completion fail and commits nothing of it. `COMMIT`
/// in SQL is refused, and after a `ROLLBACK` the completion fails. Savepoints (`Connection::begin` on it) are fine.
///
/// While it lives, the others of its group wait, and whoever wants the rows that they changed: do not await anything but the
/// store, and write to the store by no other connection, which could wait for the group for ever. What is set for the transaction
/// (`SET LOCAL`, an advisory lock) lasts until the commit, for the events after it too.
pub struct PostgresTx(Lent<Open>);

impl PostgresTx {
    pub(super) fn new(lent: Lent<Open>) -> Self {
        Self(lent)
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
