//! What a run checks and sets up before it joins its group.

use super::settings::{Assignment, Bound, ConsumerSettings};
use crate::control::{control_topic, control_topic_config};
use crate::kafka::admin::{Admin, NewTopic};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::recovery::dead_letter::dead_letter_topic;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;

/// No dead-letter topic takes less a record than this: the broker's own default for the source is not told.
const DEAD_LETTER_BYTES_MIN: u32 = 8 << 20;
/// Room for the headers of a dead letter.
const HEADERS_BYTES: u32 = 1 << 20;

/// Checks that the brokers answer and the topics exist, and creates the dead-letter topics and the control topic where they
/// are missing. Says whether there is a control topic.
pub(super) async fn topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<bool, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let sources = admin.partition_counts(&settings.topics).await?;
    if let Some(topic) = settings
        .topics
        .iter()
        .find(|topic| !sources.contains_key(*topic))
    {
        return Err(KafkaError::UnknownTopic {
            topic: topic.clone(),
        });
    }
    let letters = sources
        .keys()
        .map(|topic| dead_letter_topic(&settings.group, topic));
    let control = control_topic(&settings.group);
    let names: Vec<String> = letters.chain([control.clone()]).collect();
    let present = admin.partition_counts(&names).await.unwrap_or_default();
    let is_controlled = match present.get(&control) {
        Some(partitions) => is_usable(&control, *partitions),
        None => create_control_topic(&admin, &control).await,
    };
    let mut missing = Vec::new();
    for (topic, partitions) in sources {
        let name = dead_letter_topic(&settings.group, &topic);
        if !present.contains_key(&name) {
            let source = admin.describe_topic(&topic).await?;
            missing.push(NewTopic {
                name,
                partitions: partitions as i32,
                replication: -1,
                config: dead_letter_config(&source.config),
            });
        }
    }
    if !missing.is_empty()
        && let Err(error) = admin.create_topics(&missing).await
    {
        // Not every service may create topics. A dead letter that cannot be written stops its partition, loses nothing,
        // and says so.
        let names: Vec<&String> = missing.iter().map(|topic| &topic.name).collect();
        tracing::warn!(group = settings.group, topics = ?names, %error, "dead-letter topics cannot be created; create them before a record fails for good");
    }
    Ok(is_controlled)
}

/// A service that may not create topics is one that cannot be controlled until somebody else has.
async fn create_control_topic(admin: &Admin, name: &str) -> bool {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        replication: -1,
        config: control_topic_config(),
    };
    let created = admin.create_topics(&[topic]).await;
    if let Err(error) = &created {
        tracing::warn!(topic = name, %error, "the control topic is not there and cannot be created: this member takes no commands until it is there and the member is started again");
    }
    created.is_ok()
}

/// Of several partitions no two members would see the entries in the same order.
fn is_usable(name: &str, partitions: usize) -> bool {
    if partitions != 1 {
        tracing::warn!(
            topic = name,
            partitions,
            "the control topic has to have one partition: this member takes no commands"
        );
    }
    partitions == 1
}

/// Dead letters stay until someone has looked at them, and have room for every record of the source with headers besides.
fn dead_letter_config(source: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let largest = source.get("max.message.bytes");
    let largest = largest.and_then(|bytes| bytes.parse::<u32>().ok());
    let largest = largest.unwrap_or_default().max(DEAD_LETTER_BYTES_MIN) + HEADERS_BYTES;
    BTreeMap::from([
        ("retention.ms".to_owned(), "-1".to_owned()),
        ("max.message.bytes".to_owned(), largest.to_string()),
    ])
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
    if settings.bound == Bound::UntilEnd {
        config.set("enable.partition.eof", "true");
    }
    Ok(config)
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
