//! An inbox in one SQLite file (WAL), shared by the instances of a service on one machine.
//!
//! Owns the connections and the queue of writers. Knows nothing of Kafka, and waits only for SQLite
//! while it holds the write lock. A claim blocks every other writer of the file; therefore a
//! handler reads all other data before it is called, and its events are published after the commit.
//!
//! # Concurrency
//! SQLite has one writer at a time per file, and its own waiting is unfair. Therefore one
//! connection writes, this process's writers wait in a queue (`write_lock_queue.rs`), and a
//! transaction begins with `BEGIN IMMEDIATE`, so that it never has to promote a read lock. Readers
//! use other connections and see the last commit, thanks to the WAL.
//!
//! # Durability
//! `synchronous` follows [`Durability`]. The effect and the inbox row are pages of one file, so no
//! crash can keep one without the other.
//!
//! # Files
//! `inbox.rs` opens the inbox and claims; `store.rs` has its connections and `transaction.rs` an
//! open transaction, which `commit_guard.rs` lets only the store commit. `tables.rs` creates the
//! tables and `statements.rs` has the SQL of deliveries. `completions.rs` reads, and `error.rs`
//! maps errors to remedies.

mod commit_guard;
mod completions;
mod error;
mod inbox;
mod settings;
mod statements;
mod store;
mod tables;
mod transaction;
mod write_lock_queue;

#[cfg(test)]
mod tests;

pub use completions::SqliteCompletions;
pub(super) use completions::open_for_reading;
pub use inbox::SqliteInbox;
pub use settings::{Durability, SqliteSettings};
pub use transaction::SqliteTx;
