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
const SESSION_TIMEOUT: &str = "session.timeout.ms";

/// A member learns of a rebalance by the answer to a heartbeat, and a joining one waits for all
/// members: the client's default of 3 s is most of the wait of its records.
const HEARTBEAT_INTERVAL_MS: u32 = 1000;
/// The default is at most this part of the session timeout: with one heartbeat in a session, the
/// first that is late costs the member its place.
const HEARTBEATS_PER_SESSION: u32 = 3;

/// The client configuration for these settings.
///
/// Properties of the service ([`KafkaConfig`]) come first; these settings override them.
pub(crate) fn client_config(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<ClientConfig, ConfigError> {
    let mut config = kafka.consumer(&settings.group)?;
    if config.get(HEARTBEAT_INTERVAL).is_none() {
        let interval_ms = heartbeat_interval_ms(config.get(SESSION_TIMEOUT));
        config.set(HEARTBEAT_INTERVAL, interval_ms.to_string());
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
                SESSION_TIMEOUT,
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

/// The default of `heartbeat.interval.ms` beside this `session.timeout.ms`, if one is set. It is at
/// least 1, the least that the client accepts.
fn heartbeat_interval_ms(session_timeout_ms: Option<&str>) -> u32 {
    let session_ms = session_timeout_ms.and_then(|session| session.parse::<u32>().ok());
    let share_ms = session_ms.map_or(HEARTBEAT_INTERVAL_MS, |ms| ms / HEARTBEATS_PER_SESSION);
    HEARTBEAT_INTERVAL_MS.min(share_ms).max(1)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::BaseConsumer;

    /// The configuration of a member with these properties of its service.
    fn config(assignment: Assignment, properties: &[&str]) -> ClientConfig {
        let mut kafka = KafkaConfig::new("127.0.0.1:9");
        for property in properties {
            kafka.set(property).expect("a property of librdkafka");
        }
        let settings = ConsumerSettings::new("g", ["t"]).with_assignment(assignment);
        client_config(&kafka, &settings).expect("settings that can be used")
    }

    /// The interval of heartbeats with these properties, under each classic assignor.
    fn heartbeat_interval(properties: &[&str]) -> String {
        let of = |assignment| {
            let config = config(assignment, properties);
            config.get(HEARTBEAT_INTERVAL).map(str::to_owned)
        };
        let interval = of(Assignment::CooperativeSticky).expect("an interval");
        for eager in [Assignment::Range, Assignment::RoundRobin] {
            assert_eq!(of(eager).as_ref(), Some(&interval));
        }
        interval
    }

    #[test]
    fn members_send_a_heartbeat_every_second() {
        assert_eq!(heartbeat_interval(&[]), "1000");
        assert_eq!(heartbeat_interval(&["session.timeout.ms=45000"]), "1000");
    }

    #[test]
    fn three_heartbeats_fit_into_a_short_session() {
        for (session_ms, interval_ms) in [(3000, "1000"), (2000, "666"), (900, "300"), (1, "1")] {
            let session = format!("session.timeout.ms={session_ms}");
            assert_eq!(heartbeat_interval(&[&session]), interval_ms, "{session_ms}");
        }
    }

    #[test]
    fn an_interval_of_heartbeats_that_is_set_wins() {
        for set in ["300", "3000"] {
            let interval = format!("heartbeat.interval.ms={set}");
            assert_eq!(heartbeat_interval(&[&interval]), set);
            let session = "session.timeout.ms=2000";
            assert_eq!(heartbeat_interval(&[&interval, session]), set);
        }
    }

    #[test]
    fn brokers_that_assign_decide_on_heartbeats() {
        let set: &[&str] = &["heartbeat.interval.ms=300", "session.timeout.ms=9000"];
        for properties in [set, &[]] {
            let config = config(Assignment::Broker, properties);
            assert_eq!(config.get("group.protocol"), Some("consumer"));
            assert_eq!(config.get(HEARTBEAT_INTERVAL), None);
            // The client refuses the property with this protocol.
            let client: Result<BaseConsumer, _> = config.create();
            client.expect("a client");
        }
    }
}
