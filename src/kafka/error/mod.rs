//! Errors of a cluster, the client's faults behind them, and the rate-limited log of lasting
//! trouble.
//!
//! librdkafka returns a timeout for nearly every failed connection, and reports the cause
//! elsewhere: in an event, or only in its log. The path of a cause to the user is:
//! 1. `connection_fault.rs` keeps the last cause of a client, as its client context.
//!    `served_client.rs` polls a client for it that is not polled otherwise.
//! 2. `kafka_error.rs` combines the failed request with that cause into a [`KafkaError`], whose
//!    class follows from the error code and whose advice follows from the text.
//! 3. `certificate.rs` examines a rejected certificate, whose fault librdkafka does not tell.
//! 4. `error_log.rs` logs causes that belong to no request, once for the process.

#[cfg(feature = "tls")]
mod certificate;
pub(crate) mod connection_fault;
pub(crate) mod error_log;
mod kafka_error;
mod served_client;

pub use kafka_error::KafkaError;
pub(in crate::kafka) use kafka_error::{broken, explained, unreachable};
pub(crate) use kafka_error::{code_of, failed};
pub(in crate::kafka) use served_client::ServedClient;
