//! The checks of a run before it joins its group, and the configuration of its client.
//!
//! A setting that works but loses records or the membership later is warned about here, once per
//! start, rather than refused: the operator may have a reason.
//!
//! | check | failure |
//! |---|---|
//! | the brokers answer | error |
//! | the source topics exist | error after 5 s |
//! | no own topic collides with another name | error |
//! | no retry topic loses parked records | error |
//! | own topics exist, with enough partitions | created, or a warning |
//! | own topics have safe settings | a warning |
//! | `revoke_timeout` fits into `max.poll.interval.ms` | a warning |
//! | `auto.offset.reset` is not `latest` | a warning |

use crate::consumer::group_topics;
use crate::consumer::settings::{Assignment, ConsumerSettings, StopWhen};
use crate::kafka::admin::Admin;
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use rdkafka::ClientConfig;

/// Checks that the brokers answer and the source topics exist, and creates the group's own topics.
/// Returns the connection.
pub(crate) async fn prepare_topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<Admin, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    group_topics::prepare(&admin, settings).await?;
    Ok(admin)
}

const HEARTBEAT_INTERVAL: &str = "heartbeat.interval.ms";

/// A member learns of a rebalance by the answer to a heartbeat, and a joining one waits for all
/// members: the client's default of 3 s is most of the wait of its records.
const HEARTBEAT_INTERVAL_MS: &str = "1000";

/// The client configuration for these settings.
///
/// Properties of the service ([`KafkaConfig`]) come first; these settings override them.
pub(crate) fn client_config(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<ClientConfig, ConfigError> {
    let mut config = kafka.consumer(&settings.group)?;
    if config.get(HEARTBEAT_INTERVAL).is_none() {
        config.set(HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL_MS);
    }
    match settings.assignment {
        Assignment::CooperativeSticky => {
            config.set("partition.assignment.strategy", "cooperative-sticky")
        }
        Assignment::Range => config.set("partition.assignment.strategy", "range"),
        Assignment::RoundRobin => config.set("partition.assignment.strategy", "roundrobin"),
        Assignment::Broker => {
            // With KIP-848 the brokers decide, and the client refuses settings of the classic
            // protocol.
            for property in [
                "partition.assignment.strategy",
                "session.timeout.ms",
                HEARTBEAT_INTERVAL,
            ] {
                config.remove(property);
            }
            config.set("group.protocol", "consumer")
        }
    };
    warn_of_long_revoke_timeout(&config, settings);
    if let Some(instance) = &settings.instance_id {
        config.set("group.instance.id", instance);
    }
    warn_of_latest(&config, settings);
    if settings.stop_when == StopWhen::UntilEnd {
        config.set("enable.partition.eof", "true");
    }
    Ok(config)
}

/// Warns of `auto.offset.reset=latest`: a service that uses it to skip a backlog at its first start
/// loses records later, silently.
fn warn_of_latest(config: &ClientConfig, settings: &ConsumerSettings) {
    if let Some(reset @ ("latest" | "largest" | "end")) = config.get("auto.offset.reset") {
        tracing::warn!(
            group = settings.group,
            "auto.offset.reset={reset}: partitions that are added to a topic later are read from their end as well, so that records \
             written before a member discovers them are never handled. Leave it at earliest, and skip a \
             backlog before the first start with kafka-consumer-groups.sh --reset-offsets --to-latest"
        );
    }
}

/// Warns of a `revoke_timeout` for which the group removes the member.
fn warn_of_long_revoke_timeout(config: &ClientConfig, settings: &ConsumerSettings) {
    const DEFAULT_MS: u128 = 300_000;
    let interval = config.get("max.poll.interval.ms");
    let interval = interval.and_then(|interval| interval.parse().ok());
    if settings.revoke_timeout.as_millis() >= interval.unwrap_or(DEFAULT_MS) {
        tracing::warn!(
            group = settings.group,
            "revoke_timeout is not shorter than max.poll.interval.ms: while a revoke waits that long for handlers, the group removes the member"
        );
    }
}
