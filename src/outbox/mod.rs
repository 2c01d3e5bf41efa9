//! The transactional outbox: an event is published if, and only if, the transaction that wrote it
//! commits.
//!
//! Owns the table in which events wait beside a service's own data, and the relay that publishes
//! them to Kafka. Knows the publisher, but no handler and no group: a web handler with a
//! transaction of its own can publish through it too.
//!
//! `publish` writes a row in the caller's transaction ([`PostgresOutbox::publish`],
//! [`SqliteOutbox::publish`]). A [`Relay`] reads committed rows, publishes them, and deletes each
//! row once all in-sync replicas have the event. An event is published at least once, always with
//! the same id, so that the next inbox suppresses a repetition. `docs/src/service/outbox.md`
//! describes all guarantees and limits.
//!
//! # Why a table and no offset
//! The relay keeps no position. Whatever is in the table is unpublished, and a row is deleted only
//! after its acknowledgement. A transaction that commits late, with a low number, is therefore
//! never passed over.
//!
//! # Why order holds
//! Numbers grow in the order of the commits of one key: SQLite has one writer, and in PostgreSQL a
//! transaction that publishes on a key holds a lock of the key until it ends. The relay sends the
//! first row of a key and waits for its acknowledgement before it sends the next. Leases only keep
//! relays from doing the same work; order does not depend on them.
//!
//! # Files
//! - `postgres`, `sqlite`: writing rows, the tables, and the statements of relays
//! - `relay`: the relay
//! - `store.rs`: the trait between relay and stores; `conformance.rs` its suite
//! - `row.rs`: a record as columns; `status.rs`, `version.rs`: what operators see
//! - `handle`: an outbox of any kind, for relays and operators
//!
//! This file lists the stores of a build.

#[cfg(test)]
pub(crate) mod conformance;
mod error;
mod handle;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
mod relay;
mod row;
mod settings;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;
mod status;
mod store;
mod version;

pub use error::OutboxError;
pub use handle::OutboxStore;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOutbox, PostgresOutboxSettings};
pub use relay::{Relay, RelayReport, RelaySettings};
pub use settings::OutboxSettings;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteFileWatch, SqliteOutbox};
pub use status::{HeldKey, OpenTransaction, OutboxStatus, RelayShare};
pub use version::OutboxVersions;

/// How the outboxes of this build are opened by an address.
const OPENERS: &[handle::Opener] = &[
    #[cfg(feature = "postgres")]
    postgres::OPENER,
    #[cfg(feature = "sqlite")]
    sqlite::OPENER,
];
