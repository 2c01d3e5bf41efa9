//! Group commit: deliveries that are ready at the same time share one transaction, and thus one
//! wait for the disk.
//!
//! A claim waits in a queue. As soon as a transaction may be opened, it is opened for all waiting
//! claims, and for those that arrive while it begins. Each handler has it in turn, under a
//! savepoint of its own, so a failure is undone alone. After the last turn the transaction is
//! committed, and only then are the completions answered: nothing is reported as completed that a
//! crash could still undo. A claim that arrives alone has a transaction of its own, at once.
//!
//! A collision with another transaction is no failure of the delivery: its group ends early and
//! commits the finished turns, and the delivery is claimed again. If collisions are frequent, one
//! group at a time is open (`contention.rs`).
//!
//! Owns the order of events in a group. Knows no SQL: a store begins and ends its transactions
//! through [`GroupStore`].
//!
//! # Why groups have a task
//! A handler may be dropped at any time, and a dropped future cannot await a rollback. Therefore
//! the transaction belongs to the task of the group; a handler borrows it through a handoff that
//! returns it on every path, also on a drop. The task alone begins, undoes and commits. At the end
//! of a group it runs the next one, and it ends when no claim waits.
//!
//! # Order of a group
//! 1. The store begins the transaction. Then `claim_queue` picks the claims. A key that is in an
//!    open transaction waits for its end.
//! 2. The store inserts all rows of the group at once.
//! 3. Each fresh claim has its turn. A failed turn is rolled back to its savepoint.
//! 4. The next turn begins after the store has kept the writes of this one. PostgreSQL confirms
//!    that the transaction is intact, so a failure that a handler ignored is found in its own turn.
//!    SQLite may find the failure of a statement that nobody waits for later, but before the
//!    commit: then any handler of the group may have caused it.
//! 5. The events that all turns published are written at once.
//! 6. The commit. Then the completions are answered, and the group's end opens the next group.
//!
//! # Round trips
//! A turn costs what its handler executes, and in PostgreSQL one more to renew the savepoint and to
//! confirm the state of the transaction. SQLite's connection reports rollbacks by itself and
//! refuses commits that are not the store's, so its savepoints need no answer. The turn of a
//! delivery whose handler names no transaction costs none.
//!
//! # Why savepoints, and no repetition of a failed group
//! Without savepoints the failure of one handler would repeat the handlers of all others, and
//! their work outside of the store. In PostgreSQL the renewal also resets the settings of the
//! handler before, and shows that the transaction has not ended: after a `ROLLBACK` by a handler
//! the next one would write outside of it, and its effect would be committed without its row.
//!
//! An error of the transaction itself loses the whole group: its deliveries are claimed again, each
//! alone if the data was refused or if any handler may be the cause. That isolates the faulty one
//! without counting an attempt.
//!
//! # Files
//! `groups.rs` runs the groups; `batch_claim.rs` and `deferred_claim.rs` are the two other ways to
//! claim. `claim_queue/` and `contention.rs` decide and are pure. `transaction_handoff.rs` hands
//! out the transaction, `pending_answers.rs` keeps the waiting callers, `collision.rs` reports, and
//! `store.rs` is the trait of a store.

mod batch_claim;
pub(super) mod claim_queue;
mod collision;
mod contention;
mod deferred_claim;
mod groups;
mod pending_answers;
mod store;
#[cfg(test)]
pub(super) mod tests;
mod transaction_handoff;

pub(super) use collision::Cause;
pub(super) use contention::Level;
pub(super) use groups::Groups;
pub(super) use store::{CompletedRow, GroupStore, Known, of_outbox};
pub(super) use transaction_handoff::HandedOut;
