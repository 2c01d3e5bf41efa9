//! What a run checks and sets up before it joins its group.

use super::settings::{Assignment, Bound, ConsumerSettings};
use crate::control::{control_topic, control_topic_config};
use crate::kafka::admin::{Admin, NewTopic};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::recovery::retry_topic;
use rdkafka::ClientConfig;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// No topic of the group's own takes less a record than this: the broker's own default for the source is not told.
const RECORD_BYTES_MIN: u32 = 8 << 20;
/// Room for headers of our own.
const HEADERS_BYTES: u32 = 1 << 20;

/// Checks that the brokers answer and the topics exist, and sees to the group's own topics. Returns the retry topics that are
/// there, with their numbers of partitions, and whether there is a control topic.
pub(super) async fn topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(HashMap<String, usize>, bool), KafkaError> {
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
    let own = Own {
        admin: &admin,
        settings,
        sources: &sources,
    };
    own.create_missing().await?;
    let is_controlled = own.see_to_control_topic().await;
    Ok((own.grow_retry_topics().await?, is_controlled))
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

/// Creates retry topics that are missing, and gives them as many partitions as their sources have now.
pub(super) async fn grow(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<HashMap<String, usize>, KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let sources = admin.partition_counts(&settings.topics).await?;
    let own = Own {
        admin: &admin,
        settings,
        sources: &sources,
    };
    own.create_missing().await?;
    own.grow_retry_topics().await
}

/// The topics that a group has for itself.
struct Own<'a> {
    admin: &'a Admin,
    settings: &'a ConsumerSettings,
    /// The topics it reads, and how many partitions they have.
    sources: &'a BTreeMap<String, usize>,
}

impl Own<'_> {
    /// Whether there is a control topic that can be used.
    async fn see_to_control_topic(&self) -> bool {
        let name = control_topic(&self.settings.group);
        let names = std::slice::from_ref(&name);
        let present = self.admin.partition_counts(names).await;
        match present.unwrap_or_default().get(&name) {
            Some(partitions) => is_usable(&name, *partitions),
            None => create_control_topic(self.admin, &name).await,
        }
    }

    async fn create_missing(&self) -> Result<(), KafkaError> {
        let group = &self.settings.group;
        let of = |topic: &String| {
            [
                self.settings.dead_letter_topic.of(group, topic),
                retry_topic(group, topic),
            ]
        };
        let names: BTreeSet<String> = self.sources.keys().flat_map(of).collect();
        let names: Vec<String> = names.into_iter().collect();
        let present = self
            .admin
            .partition_counts(&names)
            .await
            .unwrap_or_default();
        // One for several topics has the partitions of the largest of them.
        let mut missing: BTreeMap<String, (usize, u32)> = BTreeMap::new();
        for (topic, partitions) in self.sources {
            let mut names = Vec::from(of(topic));
            names.retain(|name| !present.contains_key(name));
            if names.is_empty() {
                continue;
            }
            let source = self.admin.describe_topic(topic).await?;
            for name in names {
                let (most, largest) = missing.entry(name).or_default();
                *most = (*partitions).max(*most);
                *largest = largest_record(&source.config).max(*largest);
            }
        }
        let topic = |(name, (partitions, largest))| NewTopic {
            name,
            partitions: partitions as i32,
            replication: -1,
            config: own_config(largest),
        };
        let missing: Vec<NewTopic> = missing.into_iter().map(topic).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.admin.create_topics(&missing).await {
            // Not every service may create topics. A dead letter that cannot be written stops its partition, loses nothing,
            // and says so.
            let topics: Vec<&str> = missing.iter().map(|topic| topic.name.as_str()).collect();
            tracing::warn!(group, ?topics, %error, "topics for parked records and dead letters cannot be created; create them: without the first nothing can be parked, without the second a record that fails for good stops its partition");
        }
        Ok(())
    }

    /// A record is parked in the partition of its own number, so there has to be one.
    async fn grow_retry_topics(&self) -> Result<HashMap<String, usize>, KafkaError> {
        let group = &self.settings.group;
        let names: Vec<String> = self
            .sources
            .keys()
            .map(|topic| retry_topic(group, topic))
            .collect();
        // Where it is not known which retry topics there are, nothing may be handled: what waits in them would be overtaken.
        let mut present = self.admin.partition_counts(&names).await?;
        for (topic, partitions) in self.sources {
            let name = retry_topic(group, topic);
            let Some(count) = present.get_mut(&name).filter(|count| **count < *partitions) else {
                continue;
            };
            match self.admin.grow_topic(&name, *partitions).await {
                Ok(()) => *count = *partitions,
                Err(error) => {
                    tracing::warn!(group, topic = name, partitions, %error, "the retry topic has fewer partitions than its source and cannot be given more; add them")
                }
            }
        }
        Ok(present.into_iter().collect())
    }
}

/// What stands in a topic of the group's own stays until it is settled or someone has looked at it. It has room for every record of
/// the source, with headers besides.
fn own_config(largest: u32) -> BTreeMap<String, String> {
    let bytes_max = largest.max(RECORD_BYTES_MIN).saturating_add(HEADERS_BYTES);
    BTreeMap::from([
        ("retention.ms".to_owned(), "-1".to_owned()),
        ("max.message.bytes".to_owned(), bytes_max.to_string()),
    ])
}

/// Bytes of the largest record that a topic takes; 0 where it does not say.
fn largest_record(config: &BTreeMap<String, String>) -> u32 {
    let bytes = config.get("max.message.bytes");
    bytes
        .and_then(|bytes| bytes.parse().ok())
        .unwrap_or_default()
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
