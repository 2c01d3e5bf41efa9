//! The client of lookups. It fetches nothing.
//!
//! Brokers answer the requests of a connection one after the other, and a fetch without records
//! waits there for up to `fetch.wait.max.ms`. On the reader's client, which always fetches, each of
//! a lookup's requests would wait for that: the records of a partition that returns would wait for
//! one to two seconds.

use crate::kafka::log::LoggingContext;
use crate::kafka::native::{Login, logged_in};
use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A client without partitions.
pub(super) struct LookupClient {
    // Declared before the client: it must be dropped first.
    _login: Login,
    pub(super) consumer: BaseConsumer<LoggingContext>,
}

/// Creates the client for the first of concurrent lookups. It is dropped with the last of them: a
/// member without lookups has no client for them.
pub(super) struct LookupClients {
    config: ClientConfig,
    current: Mutex<Weak<LookupClient>>,
}

impl LookupClients {
    /// Creates clients with these properties.
    pub(super) fn new(config: ClientConfig) -> Self {
        Self {
            config,
            current: Mutex::default(),
        }
    }

    /// The client of the lookups that run, or a new one.
    pub(super) fn get(&self) -> KafkaResult<Arc<LookupClient>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = current.upgrade() {
            return Ok(client);
        }
        let (consumer, login) = logged_in(&self.config, LoggingContext)?;
        let client = Arc::new(LookupClient {
            _login: login,
            consumer,
        });
        *current = Arc::downgrade(&client);
        Ok(client)
    }
}
