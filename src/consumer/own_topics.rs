//! The topics that a group has for itself: which there have to be, whether they exist, and how they are made.
//!
//! Existence is asked by name. A topic that this member may not see may well exist, and is never taken for one that does not.
//! Knows nothing of what stands in the topics.

use super::settings::{ConsumerSettings, are_equal_to_kafka};
use crate::control::control_topic_config;
use crate::kafka::admin::{Admin, NewTopic, TopicPresence};
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use crate::recovery::retry_topic;
use std::collections::{BTreeMap, BTreeSet};

/// No topic of the group's own takes less a record than this: the broker's own default for the source is not told.
const RECORD_BYTES_MIN: u32 = 8 << 20;
/// Room for headers of our own.
const HEADERS_BYTES: u32 = 1 << 20;

/// The control topic, as far as it can be used.
pub(super) enum ControlTopic {
    Usable,
    /// It does not exist, and could not be created if that was tried.
    Absent,
    /// It has several partitions.
    Unusable,
}

/// Checks that the source topics exist, and makes the topics for parked records and dead letters where they are missing.
pub(super) async fn prepare(admin: &Admin, settings: &ConsumerSettings) -> Result<(), KafkaError> {
    let own = OwnTopics::of(admin, settings).await?;
    own.refuse_collisions().await?;
    match own.create_missing().await {
        Err(error) if error.is_about_a_name() => {
            let reason = "one of its own topics cannot be created, because Kafka takes dots and underscores in names for \
                          equal and a topic of such a name exists; give the group another name";
            return Err(ConfigError::new("group", format!("{error}: {reason}")).into());
        }
        // Not every service may create topics. A dead letter that cannot be written stops its partition, loses nothing, and
        // says so.
        Err(error) => {
            tracing::warn!(group = settings.group, %error, "topics for parked records and dead letters cannot be created; create them: without the first nothing can be parked, without the second a record that fails for good stops its partition");
        }
        Ok(()) => {}
    }
    own.grow_retry_topics().await
}

/// Looks for the control topic, and creates it where it is missing.
///
/// # Errors
/// [`KafkaError::Refused`] when this member may not see it: whether anything is paused is not known then.
pub(super) async fn make_control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    match control_topic(admin, settings).await? {
        ControlTopic::Absent => {
            let name = crate::control::control_topic(&settings.group);
            Ok(create_control_topic(admin, &name).await)
        }
        found => Ok(found),
    }
}

/// Looks for the control topic.
///
/// # Errors
/// As those of [`make_control_topic`].
pub(super) async fn control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    let name = crate::control::control_topic(&settings.group);
    let present = admin.partition_counts(std::slice::from_ref(&name)).await?;
    Ok(match present.get(&name) {
        Some(1) => ControlTopic::Usable,
        Some(partitions) => {
            tracing::warn!(
                topic = name,
                partitions,
                "the control topic has to have one partition: this member takes no commands"
            );
            ControlTopic::Unusable
        }
        None => ControlTopic::Absent,
    })
}

/// Creates own topics that are missing, and gives retry topics as many partitions as their sources have now.
///
/// # Errors
/// When a topic is missing and cannot be created.
pub(super) async fn make(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(), KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let own = OwnTopics::of(&admin, settings).await?;
    own.create_missing().await?;
    own.grow_retry_topics().await
}

/// A service that may not create topics is one that cannot be controlled until somebody else has.
async fn create_control_topic(admin: &Admin, name: &str) -> ControlTopic {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        replication: -1,
        config: control_topic_config(),
    };
    match admin.create_topics(&[topic]).await {
        Ok(_) => ControlTopic::Usable,
        Err(error) => {
            tracing::warn!(topic = name, %error, "the control topic is not there and cannot be created: this member takes no commands until it is there");
            ControlTopic::Absent
        }
    }
}

/// The topics of one group's own.
struct OwnTopics<'a> {
    admin: &'a Admin,
    settings: &'a ConsumerSettings,
    /// The topics it reads, and how many partitions they have.
    sources: BTreeMap<String, usize>,
}

impl<'a> OwnTopics<'a> {
    async fn of(admin: &'a Admin, settings: &'a ConsumerSettings) -> Result<Self, KafkaError> {
        let sources = admin.partition_counts(&settings.topics).await?;
        let is_missing = |topic: &&String| !sources.contains_key(*topic);
        if let Some(topic) = settings.topics.iter().find(is_missing) {
            return Err(KafkaError::UnknownTopic {
                topic: topic.clone(),
            });
        }
        Ok(Self {
            admin,
            settings,
            sources,
        })
    }

    /// What is written to of a source topic.
    fn written_of(&self, source: &str) -> [String; 2] {
        let group = &self.settings.group;
        [
            self.settings.dead_letter_topic.of(group, source),
            retry_topic(group, source),
        ]
    }

    /// The topics that the group has for itself, or should have.
    fn names(&self) -> Vec<String> {
        let written = self
            .sources
            .keys()
            .flat_map(|source| self.written_of(source));
        let names: BTreeSet<String> = written.collect();
        names.into_iter().collect()
    }

    /// Kafka makes no topic beside one whose name differs in dots and underscores only: the group would run without it.
    async fn refuse_collisions(&self) -> Result<(), KafkaError> {
        let existing = self.admin.topics().await?;
        let control = crate::control::control_topic(&self.settings.group);
        for own in self.names().into_iter().chain([control]) {
            let collides =
                |existing: &&String| **existing != own && are_equal_to_kafka(existing, &own);
            if existing.contains(&own) {
                continue;
            }
            if let Some(other) = existing.iter().find(collides) {
                let reason = format!(
                    "the group {} needs the topic {own}, and Kafka takes that name for equal to {other}, which exists; give \
                     the group another name",
                    self.settings.group
                );
                return Err(ConfigError::new("group", reason).into());
            }
        }
        Ok(())
    }

    async fn create_missing(&self) -> Result<(), KafkaError> {
        let mut missing = self.admin.presence(&self.names()).await?;
        // What is hidden may exist, and would be as hidden after it was created.
        missing.retain(|_, presence| *presence == TopicPresence::Absent);
        // One for several topics has the partitions of the largest of them.
        let mut wanted: BTreeMap<String, (usize, u32)> = BTreeMap::new();
        for (source, partitions) in &self.sources {
            let mut names = Vec::from(self.written_of(source));
            names.retain(|name| missing.contains_key(name));
            if names.is_empty() {
                continue;
            }
            let source = self.admin.describe_topic(source).await?;
            for name in names {
                let (most, largest) = wanted.entry(name).or_default();
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
        let wanted: Vec<NewTopic> = wanted.into_iter().map(topic).collect();
        self.admin.create_topics(&wanted).await.map(|_| ())
    }

    /// A record is parked in the partition of its own number, so there has to be one.
    async fn grow_retry_topics(&self) -> Result<(), KafkaError> {
        let group = &self.settings.group;
        let names: Vec<String> = self
            .sources
            .keys()
            .map(|source| retry_topic(group, source))
            .collect();
        let present = self.admin.presence(&names).await?;
        for (source, partitions) in &self.sources {
            let name = retry_topic(group, source);
            let Some(TopicPresence::Present { partitions: count }) = present.get(&name) else {
                continue;
            };
            if count >= partitions {
                continue;
            }
            if let Err(error) = self.admin.grow_topic(&name, *partitions).await {
                tracing::warn!(group, topic = name, partitions, %error, "the retry topic has fewer partitions than its source and cannot be given more; add them");
            }
        }
        Ok(())
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
