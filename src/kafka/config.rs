//! Connection settings: a few documented fields and verbatim librdkafka properties.
//!
//! Owns what a user may set, our defaults for each kind of client, and that no secret is printed. Opens no connection.

mod environment;
mod mask;
mod rules;

#[cfg(test)]
mod tests;

use rdkafka::ClientConfig;
use std::collections::BTreeMap;

pub(crate) use mask::mask_userinfo;

/// How to reach Kafka. `Debug` masks every secret.
///
/// Everything that librdkafka can be told goes through `properties`, under librdkafka's own names. They win over our
/// defaults, except where that would break a guarantee: turning automatic commits on, for example, is refused with the
/// reason.
#[derive(Clone)]
pub struct KafkaConfig {
    /// Bootstrap servers, comma separated: `host:port,host:port`.
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

    /// What librdkafka says about a setting or a combination of settings. Never holds a secret's value.
    pub(crate) fn from_client(error: rdkafka::error::KafkaError) -> Self {
        match error {
            rdkafka::error::KafkaError::ClientConfig(_, _, setting, _)
                if mask::is_secret(&setting) =>
            {
                Self::new(setting, "librdkafka does not accept this value")
            }
            rdkafka::error::KafkaError::ClientConfig(_, reason, setting, _) => {
                Self::new(setting, reason)
            }
            rdkafka::error::KafkaError::ClientCreation(reason) => {
                Self::new("kafka", mask_userinfo(&reason))
            }
            other => Self::new("kafka", other.to_string()),
        }
    }
}

/// What every client of ours is told.
const COMMON: &[(&str, &str)] = &[
    // Firewalls drop idle connections silently; without this a quiet service finds out at its next request.
    ("socket.keepalive.enable", "true"),
    // A topic that nobody declared is a mistake in its name; brokers would create it with defaults that nobody chose.
    ("allow.auto.create.topics", "false"),
];

/// What a producer is told beside the common part.
const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Java's and Node's clients put a key where murmur2 says; librdkafka's own default is another hash.
    ("partitioner", "murmur2_random"),
    ("compression.type", "lz4"),
    // Who awaits each publish pays this wait each time, so it is short. It costs little at high rates: while a request
    // is under way the next batch fills anyway.
    ("linger.ms", "2"),
    // The publisher bounds records and bytes itself and waits in order; the client's own limits would answer "queue
    // full" instead, and trying again later could overtake a record of the same key.
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "2147483647"),
    // The topic's own limit decides. The client's default is below the brokers', so a record that could be read could not
    // be written to a dead-letter topic.
    ("message.max.bytes", "16777216"),
    // How long a topic may be unknown before its records are refused. The client's 30 s are long for a mistyped name.
    ("topic.metadata.propagation.max.ms", "5000"),
];

/// What a consumer is told beside the common part.
const CONSUMER: &[(&str, &str)] = &[
    // Only settled records are committed, by the ledger.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    // The default of a second makes every full local queue a pause of a second.
    ("fetch.queue.backoff.ms", "10"),
    ("queued.max.messages.kbytes", "6144"),
];

impl KafkaConfig {
    /// Brokers and defaults for everything else.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "evenkeel".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// The conventional environment variables.
    ///
    /// `KAFKA_BOOTSTRAP_SERVERS` (or `KAFKA_BROKERS`, or `BOOTSTRAP_SERVERS`; `localhost:9092` if none is set),
    /// `KAFKA_CLIENT_ID`, `KAFKA_SECURITY_PROTOCOL`, `KAFKA_SASL_MECHANISM`, `KAFKA_SASL_USERNAME`,
    /// `KAFKA_SASL_PASSWORD`, `KAFKA_SSL_CA_LOCATION`, `KAFKA_SSL_CERTIFICATE_LOCATION`, `KAFKA_SSL_KEY_LOCATION` and
    /// `KAFKA_SSL_KEY_PASSWORD`. Each may be given as `<NAME>_FILE` instead: a file that holds the value, as secrets are
    /// mounted into containers. `KAFKA_X__SESSION_TIMEOUT_MS=9000` sets the property `session.timeout.ms`; a double
    /// underscore stands for an underscore in the property's name.
    ///
    /// # Errors
    /// A variable that is not UTF-8, given twice, names a file that cannot be read, or sets what [`Self::set`] refuses.
    pub fn from_env() -> Result<Self, ConfigError> {
        environment::read(std::env::vars_os())
    }

    /// Replaces what the variables of [`Self::from_env`] set and leaves the rest, for settings that were read from a file
    /// before.
    ///
    /// # Errors
    /// Those of [`Self::from_env`].
    pub fn apply_env(&mut self) -> Result<(), ConfigError> {
        environment::apply(self, std::env::vars_os())
    }

    /// Sets a verbatim property from `key=value` text.
    ///
    /// # Errors
    /// Text without `=`, a property that librdkafka does not know, a value it does not accept, or one that would break a
    /// guarantee.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(ConfigError::new(
                assignment,
                "a property is written as name=value",
            ));
        };
        self.set_property(name.trim(), value.trim())
    }

    fn set_property(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let name = rules::canonical(name);
        rules::check(name, value)?;
        match name {
            "bootstrap.servers" => self.brokers = value.to_owned(),
            "client.id" => self.client_id = value.to_owned(),
            _ => {
                self.properties.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Checks the settings that every client needs.
    ///
    /// # Errors
    /// The first setting that cannot be used, with what to do about it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        rules::check_brokers(&self.brokers)?;
        for (name, value) in &self.properties {
            rules::check(rules::canonical(name), value)?;
        }
        Ok(())
    }

    /// The properties of a producer with our defaults: acks=all, idempotence, murmur2_random, lz4…
    pub(crate) fn producer(&self) -> Result<ClientConfig, ConfigError> {
        self.build(PRODUCER, rules::is_for_producers)
    }

    /// The properties of a consumer in `group` with our defaults: earliest, no auto commit, no auto store, bounded queues…
    pub(crate) fn consumer(&self, group: &str) -> Result<ClientConfig, ConfigError> {
        if group.trim().is_empty() {
            return Err(ConfigError::new("group", "the consumer group has no name"));
        }
        let mut config = self.build(CONSUMER, rules::is_for_consumers)?;
        config.set("group.id", group);
        Ok(config)
    }

    /// The properties of an admin client.
    ///
    /// Reading records without a group takes [`Self::consumer`] with a name of one's own and a plain `assign`: librdkafka
    /// assigns nothing to a client without `group.id`.
    pub(crate) fn client(&self) -> Result<ClientConfig, ConfigError> {
        self.build(&[], |name| {
            rules::is_for_producers(name) && rules::is_for_consumers(name)
        })
    }

    /// Common part, the defaults of this kind of client, then the user's properties that concern it.
    fn build(
        &self,
        defaults: &[(&str, &str)],
        concerns: impl Fn(&str) -> bool,
    ) -> Result<ClientConfig, ConfigError> {
        self.validate()?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", &self.client_id);
        for (name, value) in COMMON.iter().chain(defaults) {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            let name = rules::canonical(name);
            if concerns(name) {
                config.set(name, value);
            }
        }
        super::log::set_level(&mut config);
        Ok(config)
    }
}

impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let properties: BTreeMap<&str, _> = self
            .properties
            .iter()
            .map(|(name, value)| (name.as_str(), mask::masked(name, value)))
            .collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &mask_userinfo(&self.brokers))
            .field("client_id", &self.client_id)
            .field("properties", &properties)
            .finish()
    }
}
