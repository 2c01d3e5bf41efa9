//! The store in PostgreSQL, for several gateways on one database.
//!
//! Owns the gateway's tables beside those of the outbox, and a few writers.
//!
//! # Concurrency
//! A writer locks the keys of its group without waiting; a key that another writer has is under
//! way. Event ids are inserted in one order by all writers, so two groups with the same ids wait
//! for each other without a deadlock; the later one finds the rows of the first, and is written
//! again. A record key is locked by the outbox, last in the transaction.
//!
//! `store.rs` opens the database and runs the writers, `statements.rs` has the SQL, `failure.rs`
//! the meaning of errors, and `tables.rs` creates the tables.

mod failure;
mod settings;
mod statements;
mod store;
mod tables;
#[cfg(test)]
mod tests;

pub use settings::PostgresStoreSettings;
pub use store::PostgresStore;
