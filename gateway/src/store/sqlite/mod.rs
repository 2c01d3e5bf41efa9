//! The store in a SQLite file, for a gateway on one machine.
//!
//! Owns the gateway's tables in the file of the outbox, and one writer. Several gateways of one
//! machine may share the file: SQLite's write lock makes their transactions follow each other.
//!
//! `store.rs` opens the file and runs the writer, `statements.rs` has the SQL, and `write_lock.rs`
//! leaves the lock to others from time to time.

mod statements;
mod store;
#[cfg(test)]
mod tests;
mod write_lock;

pub use store::SqliteStore;
