//! An inbox in PostgreSQL, shared by the instances of a service on any machine.
//!
//! Owns the connections. Knows nothing of Kafka. Several transactions are open at a time, each for
//! a group of deliveries. A unique key ensures that a delivery is in one of them only, across
//! processes too.

mod completions;
mod error;
mod inbox;
mod settings;
mod statements;
mod transaction;

#[cfg(test)]
mod shared_rows;
#[cfg(test)]
pub(crate) mod tests;

pub use inbox::{InboxVersions, PostgresInbox};
pub use settings::PostgresSettings;
pub use transaction::PostgresTx;
