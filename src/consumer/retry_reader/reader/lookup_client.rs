//! The client of lookups. It fetches nothing.
//!
//! Brokers answer the requests of a connection one after the other, and a fetch without records
//! waits there for up to `fetch.wait.max.ms`. On the reader's client, which always fetches, each of
//! a lookup's requests would wait for that: the records of a partition that returns would wait for
//! one to two seconds.

use crate::kafka::KafkaConfig;
use crate::kafka::log::LoggingContext;
use crate::kafka::native::{Login, Watched, logged_in};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

/// A client without partitions, watched against the loss of all brokers.
pub(crate) struct LookupClient {
    // Declared before the client: they must be dropped first.
    _watched: Watched,
    _login: Login,
    pub(super) consumer: BaseConsumer<LoggingContext>,
}

impl LookupClient {
    /// Creates the client with these properties.
    pub(crate) fn new(kafka: &KafkaConfig, config: &ClientConfig) -> KafkaResult<Self> {
        let (consumer, login) = logged_in(config, LoggingContext)?;
        Ok(Self {
            _watched: Watched::new(consumer.client(), &kafka.brokers, None),
            _login: login,
            consumer,
        })
    }
}
