//! The properties that a user may set, by name and kind of client.
//!
//! Owns the refusals and their reasons. librdkafka itself validates names and values.
//!
//! Each table serves one guarantee or one kind of mistake:
//! - `FIXED` and `REFUSED` keep settings that would lose, duplicate or reorder records.
//! - `PRODUCER_ONLY` and `CONSUMER_ONLY` route a property to the clients that know it.
//! - `check_combinations` finds combinations that librdkafka accepts and then never connects with.
//!
//! A property that no table names is passed to librdkafka, so a new version of it needs no change
//! here.

use super::ConfigError;
use crate::kafka::token::{self, TokenFile};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use std::collections::BTreeMap;

/// librdkafka's second names for a property, with the name used here.
///
/// Otherwise a default under one name and the user's value under the other would both be set, in
/// any order.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("request.required.acks", "acks"),
    ("compression.codec", "compression.type"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("message.send.max.retries", "retries"),
    ("auto.commit.enable", "enable.auto.commit"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanisms", "sasl.mechanism"),
];

/// Properties whose value is restricted because a guarantee depends on it: name, accepted values,
/// reason.
const FIXED: &[(&str, &[&str], &str)] = &[
    (
        "enable.auto.commit",
        &["false"],
        "offsets are committed only when their records are settled",
    ),
    (
        "enable.auto.offset.store",
        &["false"],
        "offsets are committed only when their records are settled",
    ),
    (
        "acks",
        &["all", "-1"],
        "a publish is confirmed only by all in-sync replicas",
    ),
    (
        "enable.idempotence",
        &["true"],
        "without it a retried batch is duplicated or overtakes another",
    ),
    (
        "partitioner",
        &[
            "murmur2_random",
            "murmur2",
            "consistent_random",
            "consistent",
            "fnv1a_random",
            "fnv1a",
        ],
        "the records of a key keep their order in one partition only; murmur2_random is the hash \
         of Java's and Node's clients, \
         consistent_random that of librdkafka's, fnv1a_random that of Sarama's",
    ),
    (
        "queuing.strategy",
        &["fifo"],
        "events of one key keep their order",
    ),
    (
        "delivery.report.only.error",
        &["false"],
        "a publish waits for its delivery report",
    ),
    (
        "offset.store.method",
        &["broker"],
        "offsets are kept by the group",
    ),
];

/// Properties that cannot be set at all, with the reason: they have another place in this library,
/// or would run code of someone else.
const REFUSED: &[(&str, &str)] = &[
    (
        "group.id",
        "the group is the consumer's name; give it where the consumer is built",
    ),
    (
        "transactional.id",
        "transactions are not supported; effects are made once by the inbox",
    ),
    (
        "queue.buffering.max.messages",
        "the publisher bounds its buffer itself; set its buffer_records_max",
    ),
    (
        "queue.buffering.max.kbytes",
        "the publisher bounds its buffer itself; set its buffer_bytes_max",
    ),
    (
        "plugin.library.paths",
        "it loads code into this process; link what is needed instead",
    ),
    ("ssl.engine.location", "it loads code into this process"),
    ("sasl.kerberos.kinit.cmd", "it runs a shell command"),
    (
        "test.mock.num.brokers",
        "it replaces the brokers by a mock that forgets everything",
    ),
];

/// Properties for producers only. Consumers warn about them.
const PRODUCER_ONLY: &[&str] = &[
    "acks",
    "batch.num.messages",
    "batch.size",
    "compression.level",
    "compression.type",
    "delivery.report.only.error",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "partitioner",
    "queue.buffering.backpressure.threshold",
    "queuing.strategy",
    "request.timeout.ms",
    "retries",
    "sticky.partitioning.linger.ms",
    "transaction.timeout.ms",
];

/// Properties for consumers only. Producers warn about them. An admin client gets neither these nor
/// those of producers.
const CONSUMER_ONLY: &[&str] = &[
    "auto.commit.interval.ms",
    "auto.offset.reset",
    "check.crcs",
    "coordinator.query.interval.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "isolation.level",
    "max.poll.interval.ms",
    "offset.store.method",
    "partition.assignment.strategy",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "session.timeout.ms",
];

/// The canonical name of a property.
pub(super) fn canonical(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, canonical)| canonical)
}

/// Whether a property (by its canonical name) applies to producers.
pub(super) fn is_for_producers(name: &str) -> bool {
    !CONSUMER_ONLY.contains(&name)
}

/// Whether a property (by its canonical name) applies to consumers.
pub(super) fn is_for_consumers(name: &str) -> bool {
    !PRODUCER_ONLY.contains(&name)
}

/// Refuses a value that would break a guarantee, then lets librdkafka validate name and value.
/// `name` is canonical.
pub(super) fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(ConfigError::new(name, format!("cannot be set: {reason}")));
    }
    if let Some((_, accepted, reason)) = FIXED.iter().find(|(fixed, ..)| *fixed == name)
        && !accepted.contains(&value.to_ascii_lowercase().as_str())
    {
        let only = accepted.join(" or ");
        return Err(ConfigError::new(name, format!("must be {only}: {reason}")));
    }
    if name == "bootstrap.servers" {
        check_brokers(value)?;
    }
    check_with_librdkafka(name, value).map_err(|error| {
        match name.starts_with("sasl.oauthbearer.") {
            true if !has_oidc() => ConfigError::new(
                name,
                format!(
                    "this build of librdkafka has no curl, which OIDC needs; {}, or build with the \
                 feature dynamic-linking and a \
                 librdkafka that has curl",
                    token::TOKEN_REMEDY
                ),
            ),
            _ => error,
        }
    })
}

/// Whether librdkafka knows the name and accepts the value: sets it on a configuration that no
/// client uses.
fn probe(name: &str, value: &str) -> KafkaResult<()> {
    let mut probe = ClientConfig::new();
    probe.set(name, value);
    probe.create_native_config().map(drop)
}

fn check_with_librdkafka(name: &str, value: &str) -> Result<(), ConfigError> {
    probe(name, value).map_err(ConfigError::from_client)
}

/// Whether librdkafka has a property of this name, whatever its value.
#[cfg(feature = "config-file")]
pub(super) fn is_known(name: &str) -> bool {
    use rdkafka::error::KafkaError;
    let unknown = rdkafka::types::RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN;
    !matches!(probe(name, ""), Err(KafkaError::ClientConfig(result, ..)) if result == unknown)
}

/// Whether librdkafka can fetch tokens by itself. The bundled one cannot.
fn has_oidc() -> bool {
    check_with_librdkafka("sasl.oauthbearer.method", "oidc").is_ok()
}

/// Properties whose value is the path of a file, or `probe`.
const FILES: &[&str] = &[
    "https.ca.location",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
];

/// Checks that the files exist: librdkafka reports only OpenSSL's error code, and for the token
/// endpoint nothing.
pub(super) fn check_files(properties: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for (name, path) in properties {
        if FILES.contains(&name.as_str())
            && path != "probe"
            && let Err(error) = std::fs::File::open(path)
        {
            return Err(ConfigError::new(
                name,
                format!("cannot read {path}: {error}"),
            ));
        }
    }
    Ok(())
}

/// Validates combinations of settings with which librdkafka would try to connect for ever. All of
/// them are about SASL.
pub(super) fn check_combinations(properties: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let value = |wanted: &str| {
        let mut named = properties.iter();
        let found = named.find(|(name, _)| canonical(name) == wanted);
        found.map(|(_, value)| value.to_ascii_lowercase())
    };
    let is = |name: &str, expected: &str| value(name).is_some_and(|value| value == expected);
    let uses_sasl = value("security.protocol").is_some_and(|protocol| protocol.starts_with("sasl"));
    if !uses_sasl {
        return Ok(());
    }
    if value("sasl.mechanism").is_none() {
        return Err(ConfigError::new(
            "sasl.mechanism",
            "is not set; set it to what the brokers offer: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or \
             OAUTHBEARER",
        ));
    }
    if is("sasl.mechanism", "oauthbearer")
        && !is("sasl.oauthbearer.method", "oidc")
        && !is("enable.sasl.oauthbearer.unsecure.jwt", "true")
    {
        match properties.get(token::CONFIG) {
            Some(text) => drop(TokenFile::parse(text)?),
            None if token::has_source() => {}
            None => {
                let reason = format!(
                    "OAUTHBEARER needs a source of tokens; {}",
                    token::TOKEN_REMEDY
                );
                return Err(ConfigError::new(token::CONFIG, reason));
            }
        }
    }
    let mechanism = value("sasl.mechanism").unwrap_or_default();
    let takes_a_password = mechanism == "plain" || mechanism.starts_with("scram-");
    for name in ["sasl.username", "sasl.password"] {
        if takes_a_password && value(name).is_none_or(|value| value.is_empty()) {
            let reason = format!("is not set; {} needs it", mechanism.to_uppercase());
            return Err(ConfigError::new(name, reason));
        }
    }
    Ok(())
}

/// Checks that there is at least one server, and that each has a host and, if given, a valid port.
pub(super) fn check_brokers(brokers: &str) -> Result<(), ConfigError> {
    let refuse = |reason: String| Err(ConfigError::new("brokers", reason));
    if brokers.trim().is_empty() {
        return refuse(
            "no bootstrap server is given; set it as host:port, for example localhost:9092"
                .to_owned(),
        );
    }
    for server in brokers.split(',').map(str::trim) {
        let address = server.split_once("://").map_or(server, |(_, rest)| rest);
        if address.contains('@') {
            return refuse(
                "an address must not contain credentials; set sasl.username and sasl.password"
                    .to_owned(),
            );
        }
        let (host, port) = match address.rsplit_once(':') {
            // The colons of a bare IPv6 address do not precede a port.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (address, None),
        };
        if host.is_empty() {
            return refuse(format!(
                "{server:?} names no host; servers are written as host:port,host:port"
            ));
        }
        if let Some(port) = port
            && port.parse::<u16>().unwrap_or(0) == 0
        {
            return refuse(format!(
                "{port:?} of {server:?} is no port; ports are numbers from 1 to 65535"
            ));
        }
    }
    Ok(())
}
