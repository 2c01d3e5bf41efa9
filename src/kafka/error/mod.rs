//! Errors of a cluster, the client's faults behind them, and the rate-limited log of lasting
//! trouble.

#[cfg(feature = "tls")]
mod certificate;
pub(crate) mod fault;
mod kafka_error;
pub(crate) mod trouble;

pub use kafka_error::KafkaError;
pub(in crate::kafka) use kafka_error::{broken, explained, unreachable};
pub(crate) use kafka_error::{code_of, failed};
