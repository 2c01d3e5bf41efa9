//! Connection settings: a few documented fields and verbatim librdkafka properties.

use std::collections::BTreeMap;

/// How to reach Kafka. `Debug` masks every secret.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Bootstrap servers, comma separated.
    pub brokers: String,
    /// The client's name as brokers log it.
    pub client_id: String,
    /// Verbatim librdkafka properties; they win over ours, except those that would break a guarantee.
    pub properties: BTreeMap<String, String>,
}

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// The setting's name.
    pub setting: String,
    /// What is wrong and what to do about it.
    pub reason: String,
}

impl ConfigError {
    /// A setting and what is wrong with it.
    pub fn new(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            reason: reason.into(),
        }
    }
}

impl KafkaConfig {
    /// Brokers and defaults for everything else.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "evenkeel".to_owned(),
            properties: BTreeMap::new(),
        }
    }
    /// `KAFKA_BOOTSTRAP_SERVERS` and the other conventional variables.
    pub fn from_env() -> Result<Self, ConfigError> {
        todo!()
    }
    /// Sets a verbatim property from `key=value` text.
    pub fn set(&mut self, _assignment: &str) -> Result<(), ConfigError> {
        todo!()
    }
    /// Checks the settings that every client needs.
    pub fn validate(&self) -> Result<(), ConfigError> {
        todo!()
    }
    /// The properties of a producer with our defaults: acks=all, idempotence, murmur2_random, lz4…
    pub(crate) fn producer(&self) -> Result<rdkafka::ClientConfig, ConfigError> {
        todo!()
    }
    /// The properties of a consumer in `group` with our defaults: earliest, no auto commit, no auto store, bounded queues…
    pub(crate) fn consumer(&self, _group: &str) -> Result<rdkafka::ClientConfig, ConfigError> {
        todo!()
    }
    /// The properties of an admin client or a group-less reader.
    pub(crate) fn client(&self) -> Result<rdkafka::ClientConfig, ConfigError> {
        todo!()
    }
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}
