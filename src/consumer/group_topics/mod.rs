//! A group's own topics: which are needed, whether they exist and are configured safely, and their
//! creation.
//!
//! Existence is looked up by name. A topic that this member has no permission to see may exist, and
//! is never taken for a missing one. The content of the topics is not read here.
//!
//! - [`spec`]: their required configuration
//! - `kinds`: the kinds of topics and of faults
//! - [`faults`]: the faults in the settings of an actual topic
//! - [`plan`]: how actual topics differ from the required ones, and their repair
//! - [`periodic_check`]: the check at an interval while a member runs
//! - `telemetry`: what the checks log

mod faults;
mod kinds;
pub(crate) mod periodic_check;
mod plan;
mod spec;
mod telemetry;

pub use kinds::{GroupTopicKind, TopicFault};
pub(crate) use plan::repair_command;
pub use plan::{GroupTopic, GroupTopicState, GroupTopics};

use crate::consumer::settings::ConsumerSettings;
use crate::consumer::settings::topic_names::collide_in_kafka;
use crate::kafka::admin::Admin;
use crate::kafka::{ConfigError, KafkaConfig, KafkaError};
use std::time::{Duration, Instant};

/// How long a source topic may be missing at the start. Brokers learn of a created topic one by
/// one, some of them only after the creation was acknowledged. Publishers wait as long
/// (`topic.metadata.propagation.max.ms`).
const PROPAGATION: Duration = Duration::from_secs(5);

/// The first retry topic from which Kafka deletes parked records, with the fault.
pub(crate) fn unsafe_retry_topic(topics: &[GroupTopic]) -> Option<(&GroupTopic, &TopicFault)> {
    let mut retry_topics = topics
        .iter()
        .filter(|topic| topic.kind == GroupTopicKind::Retry);
    retry_topics.find_map(|topic| {
        let fault = topic.faults.iter().find(|fault| fault.loses)?;
        Some((topic, fault))
    })
}

/// The own topics that these settings need.
pub(crate) fn required_topics(settings: &ConsumerSettings) -> GroupTopics {
    GroupTopics {
        group: settings.group.clone(),
        sources: settings.topics.clone(),
        dead_letter_topic: settings.dead_letter_topic.clone(),
        dead_letters_kept_min: settings.dead_letters_kept_min,
    }
}

/// Whether the control topic can be used.
pub(crate) enum ControlTopic {
    /// It has one partition.
    Usable,
    /// It does not exist. If its creation was tried, that failed.
    Absent,
    /// It has several partitions.
    Unusable,
}

/// Checks that the source topics exist, creates the group's own topics that are missing, adds
/// partitions to those that have too few, and checks their settings.
///
/// # Errors
/// [`KafkaError::UnknownTopic`] if a source topic is still missing after 5 s.
/// [`KafkaError::UnsafeTopic`] if Kafka would delete parked records from a retry topic.
///
/// A control topic, a dead-letter topic or partitions that cannot be created are warned about: the
/// service can work without, and an operator may add them later.
pub(crate) async fn prepare(admin: &Admin, settings: &ConsumerSettings) -> Result<(), KafkaError> {
    let topics = describe_at_start(admin, settings).await?;
    refuse_collisions(admin, &settings.group, &topics).await?;
    refuse_unsafe(&settings.group, &topics)?;
    for topic in &topics {
        telemetry::topic_checked(&settings.group, topic);
    }
    match plan::create_missing(admin, &topics).await {
        Err(error) if error.is_name_refused() => {
            let reason = "one of the group's own topics cannot be created: Kafka treats dots and underscores in names as \
                          equal, and a topic of such a name exists; give the group another name";
            Err(ConfigError::new("group", format!("{error}: {reason}")).into())
        }
        // Not every service may create topics. A dead letter that cannot be written stops its
        // partition and raises an alarm, but loses no record.
        Err(error) => {
            telemetry::topics_not_created(&settings.group, &error);
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Looks up the group's topics. A source topic may be missing for [`PROPAGATION`].
async fn describe_at_start(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<Vec<GroupTopic>, KafkaError> {
    let deadline = Instant::now() + PROPAGATION;
    loop {
        match required_topics(settings).describe(admin).await {
            Err(KafkaError::UnknownTopic { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(PROPAGATION / 20).await;
            }
            found => return found,
        }
    }
}

/// Refuses names that collide with an existing topic: Kafka creates no topic whose name differs
/// from another's only in dots and underscores, and the group would run without it.
async fn refuse_collisions(
    admin: &Admin,
    group: &str,
    topics: &[GroupTopic],
) -> Result<(), KafkaError> {
    let existing = admin.topics().await?;
    for GroupTopic { name: own, .. } in topics {
        let collides = |existing: &&String| *existing != own && collide_in_kafka(existing, own);
        if existing.contains(own) {
            continue;
        }
        if let Some(other) = existing.iter().find(collides) {
            let reason = format!(
                "the group {group} needs the topic {own}, and Kafka treats that name as equal to {other}, which exists; give \
                 the group another name"
            );
            return Err(ConfigError::new("group", reason).into());
        }
    }
    Ok(())
}

/// Looks up the control topic, and creates it if it is missing.
///
/// # Errors
/// [`KafkaError::Refused`] if this member may not see it: it is then unknown whether a partition is
/// paused.
pub(crate) async fn ensure_control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    match control_topic(admin, settings).await? {
        ControlTopic::Absent => create_control_topic(admin, settings).await,
        found => Ok(found),
    }
}

/// Looks up the control topic.
///
/// # Errors
/// The same as those of [`ensure_control_topic`].
pub(crate) async fn control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    let name = crate::control::control_topic(&settings.group);
    let present = admin.partition_counts(std::slice::from_ref(&name)).await?;
    Ok(match present.get(&name) {
        Some(1) => ControlTopic::Usable,
        Some(partitions) => {
            telemetry::control_topic_unusable(&name, *partitions);
            ControlTopic::Unusable
        }
        None => ControlTopic::Absent,
    })
}

/// Creates the control topic. If that is refused, the group cannot be controlled until someone else
/// creates it.
async fn create_control_topic(
    admin: &Admin,
    settings: &ConsumerSettings,
) -> Result<ControlTopic, KafkaError> {
    let mut topics = required_topics(settings).describe(admin).await?;
    topics.retain(|topic| topic.kind == GroupTopicKind::Control);
    Ok(match plan::create_missing(admin, &topics).await {
        Ok(()) => ControlTopic::Usable,
        Err(error) => {
            telemetry::control_topic_not_created(&settings.group, &error);
            ControlTopic::Absent
        }
    })
}

/// Refuses to start while Kafka would delete parked records: they are the only copy that is still
/// to be handled, as their source offsets are committed.
fn refuse_unsafe(group: &str, topics: &[GroupTopic]) -> Result<(), KafkaError> {
    match unsafe_retry_topic(topics) {
        None => Ok(()),
        Some((topic, fault)) => Err(KafkaError::UnsafeTopic {
            topic: topic.name.clone(),
            reason: fault.to_string(),
            command: repair_command(group),
        }),
    }
}

/// Creates missing own topics, and adds partitions to those that have fewer than their sources.
///
/// # Errors
/// Returns an error if a topic is missing and cannot be created.
pub(crate) async fn create_missing_topics(
    kafka: &KafkaConfig,
    settings: &ConsumerSettings,
) -> Result<(), KafkaError> {
    let admin = Admin::connect(kafka, settings.startup_timeout).await?;
    let topics = required_topics(settings).describe(&admin).await?;
    plan::create_missing(&admin, &topics).await
}
