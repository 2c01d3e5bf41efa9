//! Group commit: deliveries that are ready at the same time share one transaction, and thus one
//! wait for the disk.
//!
//! A claim waits in a queue. As soon as a transaction may be opened, it is opened for all waiting
//! claims. Each handler has it in turn, under a savepoint of its own, so a failure is undone alone.
//! After the last turn the transaction is committed, and only then are the completions answered:
//! nothing is reported as completed that a crash could still undo. A claim that arrives alone has a
//! transaction of its own, at once.
//!
//! A collision with another transaction is no failure of the delivery: its group ends early and
//! commits the finished turns, and the delivery is claimed again. If collisions are frequent, one
//! group at a time is open (`contention.rs`).
//!
//! Owns the order of events in a group. Knows no SQL: a store begins and ends its transactions
//! through [`GroupStore`].

mod batch_claim;
mod claim_queue;
mod collision;
mod contention;
mod deferred_claim;
mod groups;
mod pending_answers;
mod store;
#[cfg(test)]
mod tests;
mod transaction_handoff;

#[cfg(any(feature = "sqlite", test))]
pub(super) use claim_queue::GROUP_MAX;
pub(super) use collision::Cause;
pub(super) use contention::Level;
pub(super) use groups::Groups;
pub(super) use store::{CompletedRow, GroupStore, Known};
pub(super) use transaction_handoff::HandedOut;
