//! An inbox in one SQLite file (WAL), shared by the instances of a service on one machine.
//!
//! Owns the connections and the queue of writers. Knows nothing of Kafka, and waits only for SQLite
//! while it holds the write lock. A claim blocks every other writer of the file; therefore a
//! handler reads all other data before it is called, and its events are published after the commit.

mod completions;
mod error;
mod inbox;
mod settings;
mod statements;
mod transaction;
mod write_lock_queue;

#[cfg(test)]
mod tests;

pub use completions::SqliteCompletions;
pub use inbox::SqliteInbox;
pub use settings::{Durability, SqliteSettings};
pub use transaction::SqliteTx;
