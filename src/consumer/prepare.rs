//! What a run checks before it joins its group, and the settings of the client that joins.

use super::own_topics;
use super::settings::{Assignment, Bound, ConsumerSettings};
use crate::kafka::admin::Admin;
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use rdkafka::ClientConfig;

/// Checks that the brokers answer and the topics exist, and sees to the group's own topics. Returns the connection that it
/// made.
pub(super) async fn topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<Admin, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    own_topics::prepare(&admin, settings).await?;
    Ok(admin)
}

/// The client's properties for these settings.
pub(super) fn client(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<ClientConfig, ConfigError> {
    let mut config = kafka.consumer(&settings.group)?;
    match settings.assignment {
        Assignment::CooperativeSticky => {
            config.set("partition.assignment.strategy", "cooperative-sticky")
        }
        Assignment::Range => config.set("partition.assignment.strategy", "range"),
        Assignment::RoundRobin => config.set("partition.assignment.strategy", "roundrobin"),
        Assignment::Broker => {
            // With KIP-848 the brokers decide, and the client refuses settings of the classic protocol.
            for property in [
                "partition.assignment.strategy",
                "session.timeout.ms",
                "heartbeat.interval.ms",
            ] {
                config.remove(property);
            }
            config.set("group.protocol", "consumer")
        }
    };
    warn_of_long_revokes(&config, settings);
    if let Some(instance) = &settings.instance_id {
        config.set("group.instance.id", instance);
    }
    warn_of_latest(&config, settings);
    if settings.bound == Bound::UntilEnd {
        config.set("enable.partition.eof", "true");
    }
    Ok(config)
}

/// A service that wants no backlog at its first start loses records later on with this, without a sign.
fn warn_of_latest(config: &ClientConfig, settings: &ConsumerSettings) {
    if let Some(reset @ ("latest" | "largest" | "end")) = config.get("auto.offset.reset") {
        tracing::warn!(
            group = settings.group,
            "auto.offset.reset={reset}: partitions that are added to a topic later are read from their end as well, so that what is \
             written to them before a member sees them is never handled. Leave it at earliest, and skip a \
             backlog before the first start with kafka-consumer-groups.sh --reset-offsets --to-latest"
        );
    }
}

/// A revoke that waits for as long as the group waits for a member costs the member its place.
fn warn_of_long_revokes(config: &ClientConfig, settings: &ConsumerSettings) {
    const DEFAULT_MS: u128 = 300_000;
    let interval = config.get("max.poll.interval.ms");
    let interval = interval.and_then(|interval| interval.parse().ok());
    if settings.revoke_timeout.as_millis() >= interval.unwrap_or(DEFAULT_MS) {
        tracing::warn!(
            group = settings.group,
            "revoke_timeout is not shorter than max.poll.interval.ms: while a revoke waits that long for handlers, the group gives the member up"
        );
    }
}
