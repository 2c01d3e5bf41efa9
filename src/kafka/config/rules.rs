//! Which properties a user may set, under which name, for which kind of client.
//!
//! Owns the refusals and their reasons. Whether a name exists and a value fits is asked of librdkafka itself.

use super::ConfigError;
use rdkafka::ClientConfig;

/// Second names that librdkafka knows for one property, with the one that we use.
///
/// Without this a default of ours under one name and the user's value under the other would both be set, in any order.
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
];

/// Properties that may have one value only, because a guarantee rests on it: name, values accepted, reason.
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
        &["murmur2_random"],
        "a key must land on the partition where clients in other languages put it",
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

/// Properties that cannot be set at all, and why.
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

/// Properties that only a producer understands; a consumer warns about them.
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

/// Properties that only a consumer understands; a producer warns about them.
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

/// The one name that we use for a property.
pub(super) fn canonical(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, canonical)| canonical)
}

/// Whether a producer understands the property (by its canonical name).
pub(super) fn is_for_producers(name: &str) -> bool {
    !CONSUMER_ONLY.contains(&name)
}

/// Whether a consumer understands the property (by its canonical name).
pub(super) fn is_for_consumers(name: &str) -> bool {
    !PRODUCER_ONLY.contains(&name)
}

/// Refuses what would break a guarantee, then asks librdkafka about name and value.
pub(super) fn check(name: &str, value: &str) -> Result<(), ConfigError> {
    if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Err(ConfigError::new(name, format!("cannot be set: {reason}")));
    }
    if let Some((_, accepted, reason)) = FIXED.iter().find(|(fixed, ..)| *fixed == name)
        && !accepted.contains(&value.to_ascii_lowercase().as_str())
    {
        let only = accepted[0];
        return Err(ConfigError::new(name, format!("must be {only}: {reason}")));
    }
    if name == "bootstrap.servers" {
        check_brokers(value)?;
    }
    let mut probe = ClientConfig::new();
    probe.set(name, value);
    probe
        .create_native_config()
        .map(drop)
        .map_err(ConfigError::from_client)
}

/// Checks that there is at least one server and that each has a host and, if given, a port that exists.
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
                "credentials do not belong into an address; set sasl.username and sasl.password"
                    .to_owned(),
            );
        }
        let (host, port) = match address.rsplit_once(':') {
            // The colons of a bare IPv6 address are no port's.
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
