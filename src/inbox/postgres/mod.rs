//! An inbox in PostgreSQL, shared by the instances of a service on any machine.
//!
//! Owns the connections. Knows nothing of Kafka. Several transactions are open at a time, each for
//! a group of deliveries. A unique key ensures that a delivery is in one of them only, across
//! processes too.
//!
//! # Concurrency
//! An inbox row is inserted when its delivery is claimed. PostgreSQL lets a second insert of the
//! same key wait for the first transaction, so the claim of one delivery waits across processes
//! without a lock of its own. Every statement that inserts several rows does so in the order of
//! their digests; two claims of overlapping deliveries can therefore not wait for each other.
//!
//! Groups of one consumer group take a shared advisory lock. If groups collide on rows of the
//! service, one group at a time takes it exclusively (`group_commit::contention`).
//!
//! # A server that does not answer
//! A TCP connection to a hanging server may wait for minutes. `Answers::cancel_if_silent` therefore
//! checks on a fresh connection whether the server answers at all, and cancels the work if it does
//! not.
//!
//! # Files
//! `inbox.rs` opens the inbox and claims; `store.rs` has its connections, `transaction.rs` an open
//! transaction, and `answers.rs` bounds the waits for the server. `tables.rs` creates the tables,
//! and `statements.rs` has the SQL of deliveries. `completions.rs` reads for the audit, and
//! `error.rs` maps errors to remedies.

mod answers;
mod completions;
mod error;
mod inbox;
mod settings;
mod statements;
mod store;
mod tables;
mod transaction;

#[cfg(test)]
pub(crate) mod tests;

pub(super) use completions::open_for_reading;
pub use inbox::{InboxVersions, PostgresInbox};
pub use settings::PostgresSettings;
pub use transaction::PostgresTx;
