//! What a run checks and sets up before it joins its group.

use super::settings::{Assignment, Bound, ConsumerSettings};
use crate::kafka::admin::{Admin, NewTopic};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::recovery::dead_letter::dead_letter_topic;
use rdkafka::ClientConfig;
use std::collections::BTreeMap;

/// Checks that the brokers answer and the topics exist, and creates the dead-letter topics that are missing.
pub(super) async fn topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(), KafkaError> {
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
    let letters: BTreeMap<String, usize> = sources
        .iter()
        .map(|(topic, partitions)| (dead_letter_topic(&settings.group, topic), *partitions))
        .collect();
    let names: Vec<String> = letters.keys().cloned().collect();
    let present = admin.partition_counts(&names).await.unwrap_or_default();
    let missing: Vec<NewTopic> = letters
        .into_iter()
        .filter(|(name, _)| !present.contains_key(name))
        .map(|(name, partitions)| NewTopic {
            name,
            partitions: partitions as i32,
            replication: -1,
            config: BTreeMap::new(),
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if let Err(error) = admin.create_topics(&missing).await {
        // Not every service may create topics. A dead letter that cannot be written stops its partition, loses nothing,
        // and says so.
        tracing::warn!(group = settings.group, topics = ?names, %error, "dead-letter topics cannot be created; create them before a record fails for good");
    }
    Ok(())
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
    if let Some(instance) = &settings.instance_id {
        config.set("group.instance.id", instance);
    }
    if settings.bound == Bound::UntilEnd {
        config.set("enable.partition.eof", "true");
    }
    Ok(config)
}
