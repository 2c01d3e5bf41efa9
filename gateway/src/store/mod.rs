//! Makes accepted events durable before the answer is given.
//!
//! The port [`AcceptStore`] has three implementations: [`SqliteStore`] for one machine,
//! [`PostgresStore`] for several gateways, and [`BrokerStore`], which waits for the brokers'
//! acknowledgement. The first two commit the events to an outbox together with the answer of an
//! `Idempotency-Key`; a relay publishes them.
//!
//! Knows neither HTTP routes nor schemas: events arrive encoded, and answers as bytes.
//!
//! # Files
//! - `port.rs`, `error.rs`, `settings.rs`: the contract; `conformance.rs` its suite
//! - `queue.rs`: bounded queues, groups, deadlines; `writer.rs`: the loop of a writer, retries
//! - `plan.rs`: which requests of a group are new, repeated or refused
//! - `maintenance.rs`: the measure of the backlog, and the purge
//! - `sqlite`, `postgres`, `brokers`: the stores

#[cfg(test)]
pub(crate) mod conformance;

mod brokers;
mod error;
mod maintenance;
mod plan;
mod port;
mod postgres;
mod queue;
mod settings;
mod sqlite;
mod writer;

pub use brokers::BrokerStore;
pub use error::{AcceptError, StoreError};
pub use port::{
    AcceptRequest, AcceptStore, Accepted, AcceptedEvent, Backlog, EventPlace, IdempotencyClaim,
    StoredAnswer,
};
pub use postgres::{PostgresStore, PostgresStoreSettings};
pub use settings::StoreSettings;
pub use sqlite::SqliteStore;
