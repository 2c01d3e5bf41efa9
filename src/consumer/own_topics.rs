//! The topics that a group has for itself: which there have to be, whether they exist and keep what they must, and how they
//! are made.
//!
//! Existence is asked by name. A topic that this member may not see may well exist, and is never taken for one that does not.
//! Knows nothing of what stands in the topics.
//!
//! - [`spec`]: what they have to be like · [`plan`]: what is wrong with them, and how it is mended · [`watch`]: again and
//!   again while a member runs

mod plan;
mod spec;
pub(super) mod watch;

pub use plan::{OwnTopic, OwnTopicState, OwnTopics};

use super::settings::{ConsumerSettings, are_equal_to_kafka};
use crate::kafka::admin::Admin;
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use std::fmt;

/// What one of a group's own topics is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OwnTopicKind {
    /// Records that wait for their next attempt.
    Retry,
    /// Records that failed for good.
    DeadLetters,
    /// Commands to the group.
    Control,
}

impl OwnTopicKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::DeadLetters => "dead-letters",
            Self::Control => "control",
        }
    }
}

/// A setting in force for a topic that must not be what it is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicFault {
    /// The setting.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// Whether the brokers' default is in force.
    pub is_default: bool,
    /// What it has to be; empty where a setting cannot mend it.
    pub wanted: String,
    /// Whether records that are there are lost by it. Otherwise some cannot be written.
    pub loses: bool,
    /// What comes of it.
    pub effect: String,
}

impl TopicFault {
    /// Whether another value of the setting mends it.
    pub fn can_be_mended(&self) -> bool {
        !self.wanted.is_empty() && self.wanted != self.value
    }
}

impl fmt::Display for TopicFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = if self.is_default {
            ", the brokers' default"
        } else {
            ""
        };
        let (setting, value) = (&self.setting, &self.value);
        write!(f, "{setting} is {value}{whose}: {}", self.effect)
    }
}

/// The command that mends a group's own topics.
pub(crate) fn command(group: &str) -> String {
    format!("evenkeel groups topics {group} --execute")
}

/// A retry topic from which Kafka deletes what is parked.
fn losing_retry_topic(topics: &[OwnTopic]) -> Option<(&OwnTopic, &TopicFault)> {
    let mut retry_topics = topics
        .iter()
        .filter(|topic| topic.kind == OwnTopicKind::Retry);
    retry_topics.find_map(|topic| {
        let fault = topic.faults.iter().find(|fault| fault.loses)?;
        Some((topic, fault))
    })
}

fn own(settings: &ConsumerSettings) -> OwnTopics {
    OwnTopics {
        group: settings.group.clone(),
        sources: settings.topics.clone(),
        dead_letter_topic: settings.dead_letter_topic.clone(),
        dead_letters_kept_min: settings.dead_letters_kept_min,
    }
}

/// The control topic, as far as it can be used.
pub(super) enum ControlTopic {
    Usable,
    /// It does not exist, and could not be created if that was tried.
    Absent,
    /// It has several partitions.
    Unusable,
}

/// Checks that the source topics exist, makes the group's own topics where they are missing or too small, and compares their
/// settings.
///
/// # Errors
/// [`KafkaError::UnsafeTopic`] for a retry topic from which Kafka would delete parked records.
pub(super) async fn prepare(admin: &Admin, settings: &ConsumerSettings) -> Result<(), KafkaError> {
    let topics = own(settings).look(admin).await?;
    refuse_collisions(admin, &settings.group, &topics).await?;
    refuse_unsafe(&settings.group, &topics)?;
    for topic in &topics {
        warn(&settings.group, topic);
    }
    match plan::make_whole(admin, &topics).await {
        Err(error) if error.is_about_a_name() => {
            let reason = "one of its own topics cannot be created, because Kafka takes dots and underscores in names for \
                          equal and a topic of such a name exists; give the group another name";
            Err(ConfigError::new("group", format!("{error}: {reason}")).into())
        }
        // Not every service may create topics. A dead letter that cannot be written stops its partition, loses nothing, and
        // says so.
        Err(error) => {
            tracing::warn!(group = settings.group, %error, command = command(&settings.group), "topics of the group's own cannot be created or given more partitions; have them made by the command: without a retry topic nothing can be parked, without a dead-letter topic a record that fails for good stops its partition");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Kafka makes no topic beside one whose name differs in dots and underscores only: the group would run without it.
async fn refuse_collisions(
    admin: &Admin,
    group: &str,
    topics: &[OwnTopic],
) -> Result<(), KafkaError> {
    let existing = admin.topics().await?;
    for OwnTopic { name: own, .. } in topics {
        let collides = |existing: &&String| *existing != own && are_equal_to_kafka(existing, own);
        if existing.contains(own) {
            continue;
        }
        if let Some(other) = existing.iter().find(collides) {
            let reason = format!(
                "the group {group} needs the topic {own}, and Kafka takes that name for equal to {other}, which exists; give \
                 the group another name"
            );
            return Err(ConfigError::new("group", reason).into());
        }
    }
    Ok(())
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
        ControlTopic::Absent => create_control_topic(admin, settings).await,
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

/// A service that may not create topics is one that cannot be controlled until somebody else has.
async fn create_control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    let mut topics = own(settings).look(admin).await?;
    topics.retain(|topic| topic.kind == OwnTopicKind::Control);
    Ok(match plan::make_whole(admin, &topics).await {
        Ok(()) => ControlTopic::Usable,
        Err(error) => {
            tracing::warn!(group = settings.group, %error, command = command(&settings.group), "the control topic is not there and cannot be created: this member takes no commands until it is there");
            ControlTopic::Absent
        }
    })
}

fn refuse_unsafe(group: &str, topics: &[OwnTopic]) -> Result<(), KafkaError> {
    match losing_retry_topic(topics) {
        None => Ok(()),
        Some((topic, fault)) => Err(KafkaError::UnsafeTopic {
            topic: topic.name.clone(),
            reason: fault.to_string(),
            command: command(group),
        }),
    }
}

fn warn(group: &str, topic: &OwnTopic) {
    for fault in &topic.faults {
        tracing::warn!(group, topic = topic.name, %fault, command = command(group), "a topic of the group's own is not as it has to be; the command mends it");
    }
    if topic.state == OwnTopicState::Present && !topic.shows_settings {
        tracing::info!(
            group,
            topic = topic.name,
            "whether the topic keeps what it must is not known: its settings are shown with an ACL for DESCRIBE_CONFIGS"
        );
    }
}

/// Makes own topics that are missing, and gives partitions to those that have fewer than their sources.
///
/// # Errors
/// When a topic is missing and cannot be created.
pub(super) async fn make(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(), KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let topics = own(settings).look(&admin).await?;
    plan::make_whole(&admin, &topics).await
}
