//! The transactional outbox: events leave with the transaction that made them true, or not at all.
//!
//! Owns the table in which events wait beside a service's own data, and the relay that takes them to Kafka. Knows the
//! publisher, but no handler and no group: a web handler with a transaction of its own publishes through it just as well.
//!
//! `publish` writes a row in the caller's transaction ([`PostgresOutbox::publish`], [`SqliteOutbox::publish`]); a [`Relay`]
//! reads what is committed, publishes it, and deletes the row once all in-sync replicas have the event. An event is published
//! at least once, always with the same id, so that the next inbox suppresses a second one. `docs/outbox.md` says what else
//! holds and what does not.

#[cfg(test)]
mod conformance;
mod error;
mod handle;
#[cfg(feature = "postgres")]
mod postgres;
mod relay;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
mod status;
mod store;
mod version;

pub use error::OutboxError;
pub use handle::{OutboxStore, OutboxVersions};
#[cfg(feature = "postgres")]
pub use postgres::PostgresOutbox;
#[cfg(feature = "postgres")]
pub(crate) use postgres::{append as append_in_postgres, lock_schema};
pub use relay::{Relay, RelayReport, RelaySettings};
pub use settings::OutboxSettings;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteOutbox;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::append as append_in_sqlite;
pub use status::{HeldKey, OpenTransaction, OutboxStatus, RelayShare};
