//! The connection settings: brokers, client id, and librdkafka's properties.
//!
//! The properties of a client are built in three steps, each of which overrides the one before: the
//! defaults of all clients, those of its kind (producer, consumer or admin), and the user's
//! properties that apply to this kind. A property that guarantees depend on never gets this far
//! with another value: `rules::check` refuses it.

use super::error::ConfigError;
use super::mask::{self, mask_userinfo};
use super::{rules, trust};
use rdkafka::ClientConfig;
use std::collections::BTreeMap;

/// The address of a local Kafka, and the default.
pub(super) const BROKERS_DEFAULT: &str = "localhost:9092";

/// The settings of a connection to Kafka. `Debug` masks every secret.
///
/// [`properties`](Self::properties) sets any property of librdkafka under its own name. They
/// override evenkeel's defaults, except where that would break a guarantee: for example, automatic
/// commits cannot be enabled, and the error states the reason.
///
/// One value serves all clients of a program. A property that applies to one kind of client only,
/// such as `session.timeout.ms` for consumers or `linger.ms` for producers, is left out for the
/// other kinds.
///
/// | setting | default | bounds or decides |
/// |---|---|---|
/// | [`brokers`](Self::brokers) | `localhost:9092` | where a client finds the cluster |
/// | [`client_id`](Self::client_id) | `evenkeel` | the client's name in the brokers |
/// | [`properties`](Self::properties) | none | everything else, see the table there |
///
/// ```
/// use evenkeel::kafka::KafkaConfig;
///
/// let mut kafka = KafkaConfig::new("broker-1:9092,broker-2:9092");
/// kafka.client_id = "payments".to_owned();
/// kafka.set("session.timeout.ms=30000")?;
/// assert!(kafka.set("enable.auto.commit=true").is_err());
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct KafkaConfig {
    /// Bootstrap servers, separated by commas: `host:port,host:port`. Default `localhost:9092` for
    /// [`KafkaConfig::default`] and [`KafkaConfig::from_env`].
    ///
    /// Clients learn the other brokers of the cluster from these, so a few suffice. The port may be
    /// omitted and is 9092 then. User name and password in an address are refused. No broker is
    /// contacted before a client is created.
    pub brokers: String,
    /// The name of the client in the brokers' logs, quotas and metrics. Default `evenkeel`.
    ///
    /// Brokers apply quotas by client id, and all clients of the process share it. Give each
    /// service its own.
    pub client_id: String,
    /// Properties of librdkafka by name. They override evenkeel's defaults, except those that
    /// guarantees depend on. Default: none.
    ///
    /// evenkeel's defaults where they differ from librdkafka's:
    ///
    /// | property | all clients | reason |
    /// |---|---|---|
    /// | `socket.keepalive.enable` | `true` | a connection that a firewall drops is noticed |
    /// | `allow.auto.create.topics` | `false` | a misspelt topic is an error |
    ///
    /// | property | producers | reason |
    /// |---|---|---|
    /// | `acks` | `all` | fixed: all in-sync replicas confirm a publish |
    /// | `enable.idempotence` | `true` | fixed: a retry neither duplicates nor reorders |
    /// | `partitioner` | `murmur2_random` | the hash of Java's and Node's clients |
    /// | `compression.type` | `lz4` | |
    /// | `linger.ms` | 2 | how long a batch waits for more records |
    /// | `message.max.bytes` | 16 MiB | the topic's own limit decides |
    /// | `topic.metadata.propagation.max.ms` | 5000 | how long a topic may be unknown |
    ///
    /// | property | consumers | reason |
    /// |---|---|---|
    /// | `enable.auto.commit` | `false` | fixed: only settled records are committed |
    /// | `enable.auto.offset.store` | `false` | fixed, for the same reason |
    /// | `auto.offset.reset` | `earliest` | a new group reads a topic from its beginning |
    /// | `queued.max.messages.kbytes` | 6144 | bounds the memory of prefetched records |
    /// | `fetch.queue.backoff.ms` | 10 | how long a full queue pauses its fetches |
    /// | `heartbeat.interval.ms` | 1000 | members of a group notice a rebalance soon |
    ///
    /// The default of `heartbeat.interval.ms` is a third of `session.timeout.ms` if that is shorter.
    /// It is not set if the brokers assign (KIP-848): they decide on it then.
    ///
    /// Values that are set here directly are checked by [`KafkaConfig::validate`], which every
    /// client calls at its creation. [`KafkaConfig::set`] checks at once.
    pub properties: BTreeMap<String, String>,
}

/// `localhost:9092`, with the default of every other setting.
impl Default for KafkaConfig {
    fn default() -> Self {
        Self::new(BROKERS_DEFAULT)
    }
}

/// The defaults of all clients. The documentation of [`KafkaConfig::properties`] lists them.
const COMMON: &[(&str, &str)] = &[
    // Firewalls drop idle connections silently. Without this a service would only notice at its
    // next request.
    ("socket.keepalive.enable", "true"),
    // An unknown topic is a misspelt name: brokers would create it with unintended defaults.
    ("allow.auto.create.topics", "false"),
];

/// Further defaults of a producer.
const PRODUCER: &[(&str, &str)] = &[
    ("acks", "all"),
    ("enable.idempotence", "true"),
    // Java's and Node's clients assign keys by murmur2. librdkafka's own default is another hash.
    ("partitioner", "murmur2_random"),
    ("compression.type", "lz4"),
    // A caller that awaits each publish waits this long each time, so it is short. It costs little
    // at high rates: while a request is in flight the next batch fills anyway.
    ("linger.ms", "2"),
    // The publisher itself bounds records and bytes, and waits in order. The client's own limits
    // would return "queue full" instead, and a later retry could overtake a record of the same key.
    ("queue.buffering.max.messages", "0"),
    ("queue.buffering.max.kbytes", "2147483647"),
    // The topic's own limit decides. The client's default is below the brokers', so that a readable
    // record could be too large for the dead-letter topic.
    ("message.max.bytes", "16777216"),
    // How long a topic may be unknown before its records are refused. The client's 30 s are long
    // for a misspelt name.
    ("topic.metadata.propagation.max.ms", "5000"),
];

/// Further defaults of a consumer.
const CONSUMER: &[(&str, &str)] = &[
    // Only settled records are committed, by the offset tracker.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    // With the default of a second, every full local queue pauses for a second.
    ("fetch.queue.backoff.ms", "10"),
    ("queued.max.messages.kbytes", "6144"),
];

impl KafkaConfig {
    /// Creates settings with these brokers. All others have their defaults.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "evenkeel".to_owned(),
            properties: BTreeMap::new(),
        }
    }

    /// Sets [`brokers`](Self::brokers).
    #[must_use]
    pub fn with_brokers(mut self, brokers: impl Into<String>) -> Self {
        self.brokers = brokers.into();
        self
    }

    /// Sets [`client_id`](Self::client_id).
    #[must_use]
    pub fn with_client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// Replaces [`properties`](Self::properties). They are checked by [`Self::validate`], not here.
    #[must_use]
    pub fn with_properties(mut self, properties: BTreeMap<String, String>) -> Self {
        self.properties = properties;
        self
    }

    /// Sets one property of librdkafka, like [`Self::set`], and keeps the others.
    ///
    /// ```
    /// use evenkeel::kafka::KafkaConfig;
    ///
    /// let kafka = KafkaConfig::new("broker-1:9092")
    ///     .with_client_id("payments")
    ///     .with_property("session.timeout.ms", "30000")?;
    /// assert_eq!(kafka.properties["session.timeout.ms"], "30000");
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// Returns the errors of [`Self::set`].
    pub fn with_property(mut self, name: &str, value: &str) -> Result<Self, ConfigError> {
        self.set_property(name, value)?;
        Ok(self)
    }

    /// The principal of the client in the brokers, as far as the settings tell: `User:NAME`, or
    /// `this client` if a certificate or a token determines it.
    pub(crate) fn principal(&self) -> String {
        let has_login = |name: &&String| !name.is_empty();
        let user = self.properties.get("sasl.username").filter(has_login);
        user.map_or_else(|| "this client".to_owned(), |user| format!("User:{user}"))
    }

    /// Sets a property of librdkafka from `key=value` text, as of a command line flag.
    ///
    /// librdkafka's second names are accepted: `sasl.mechanisms` sets `sasl.mechanism`.
    /// `bootstrap.servers` sets [`brokers`](Self::brokers) and `client.id` sets
    /// [`client_id`](Self::client_id). Blanks around name and value are removed, except around the
    /// value of a secret: a blank at the end of a password is part of it.
    ///
    /// # Errors
    /// Returns an error for text without `=`, a property that librdkafka does not know, a value
    /// that it does not accept, or one that would break a guarantee. The error names the property,
    /// and never contains the value of a secret. After an error the settings are unchanged.
    ///
    /// ```
    /// # use evenkeel::kafka::KafkaConfig;
    /// let mut kafka = KafkaConfig::new("broker-1:9092");
    /// kafka.set("linger.ms=20")?;
    /// let error = kafka.set("acks=1").expect_err("it would break a guarantee");
    /// assert_eq!(error.setting, "acks");
    /// # Ok::<(), evenkeel::kafka::ConfigError>(())
    /// ```
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let Some((name, value)) = assignment.split_once('=') else {
            // The text after the name may be a password.
            let is_of_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let end = assignment
                .find(|c| !is_of_name(c))
                .unwrap_or(assignment.len());
            return Err(ConfigError::new(
                &assignment[..end],
                "a property is written as name=value",
            ));
        };
        let name = name.trim();
        // A trailing blank is part of a password.
        let value = match mask::is_secret(name) {
            true => value,
            false => value.trim(),
        };
        self.set_property(name, value)
    }

    /// Checks a property and stores it under its canonical name. The single entry for all sources
    /// of settings.
    pub(super) fn set_property(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
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

    /// Validates the settings that every client needs. Opens no connection. Every client calls it
    /// at its creation; call it earlier to fail before other work starts.
    ///
    /// Checks each property on its own, that files of certificates and keys can be opened, and the
    /// combinations with which librdkafka would retry for ever instead of failing: SASL without a
    /// mechanism, a password mechanism without user name or password, and OAUTHBEARER without a
    /// source of tokens.
    ///
    /// # Errors
    /// Returns the first setting that cannot be used, with the remedy. Correct the settings: a
    /// retry with the same ones fails in the same way.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.check_each()?;
        rules::check_files(&self.properties)?;
        rules::check_combinations(&self.properties)
    }

    /// Validates each setting on its own.
    pub(super) fn check_each(&self) -> Result<(), ConfigError> {
        rules::check_brokers(&self.brokers)?;
        for (name, value) in &self.properties {
            rules::check(rules::canonical(name), value)?;
        }
        Ok(())
    }

    /// The properties of a producer with evenkeel's defaults: acks=all, idempotence,
    /// murmur2_random, lz4…
    ///
    /// # Errors
    /// Returns the errors of [`Self::validate`].
    pub(crate) fn producer(&self) -> Result<ClientConfig, ConfigError> {
        self.build(PRODUCER, rules::is_for_producers)
    }

    /// The properties of a consumer in `group` with evenkeel's defaults: earliest, no auto commit,
    /// no auto store, bounded queues…
    ///
    /// # Errors
    /// Returns the errors of [`Self::validate`], and an error for an empty group.
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
    /// To read records without a group, use [`Self::consumer`] with any group name and a plain
    /// `assign`: librdkafka assigns no partition to a client without `group.id`.
    pub(crate) fn client(&self) -> Result<ClientConfig, ConfigError> {
        self.build(&[], |name| {
            rules::is_for_producers(name) && rules::is_for_consumers(name)
        })
    }

    /// Combines the common defaults, those of this kind of client, and the user's properties that
    /// apply to it.
    ///
    /// A property of another kind is left out silently: one set of settings serves all clients, and
    /// librdkafka would log a warning for each property that a client ignores.
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
        trust::set_default(&mut config, |name| std::env::var(name).ok());
        crate::kafka::log::set_level(&mut config);
        Ok(config)
    }
}

/// Masks secrets and the user information in addresses.
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
