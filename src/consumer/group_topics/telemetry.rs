//! What the check of a group's own topics logs: one function for each fact.

use crate::consumer::group_topics::plan::{GroupTopic, GroupTopicState, repair_command};
use crate::kafka::KafkaError;

/// A topic was compared with its required configuration. Logs its faults, or that its settings are
/// hidden from this member.
pub(super) fn topic_checked(group: &str, topic: &GroupTopic) {
    for fault in &topic.faults {
        tracing::warn!(
            group,
            topic = topic.name,
            %fault,
            command = repair_command(group),
            "one of the group's own topics is misconfigured; the command repairs it"
        );
    }
    if topic.state == GroupTopicState::Present && !topic.shows_settings {
        tracing::info!(
            group,
            topic = topic.name,
            "it is unknown whether the topic's settings are safe: an ACL for DESCRIBE_CONFIGS shows them"
        );
    }
}

/// Topics cannot be created, or given more partitions, at the start.
pub(super) fn topics_not_created(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        command = repair_command(group),
        "the group's own topics cannot be created or given more partitions; create them with the command: without a retry topic no record can be parked, and without a dead-letter topic a record that fails for good stops its partition"
    );
}

/// A running member cannot create a topic or add partitions.
pub(super) fn topics_not_repaired(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        command = repair_command(group),
        "one of the group's own topics is missing or has fewer partitions than its source, and this member cannot repair it; create it with the command"
    );
}

/// The control topic has several partitions.
pub(super) fn control_topic_unusable(topic: &str, partitions: usize) {
    tracing::warn!(
        topic,
        partitions,
        "the control topic must have one partition: this member accepts no commands"
    );
}

/// The control topic is missing and cannot be created.
pub(super) fn control_topic_not_created(group: &str, error: &KafkaError) {
    tracing::warn!(
        group,
        %error,
        command = repair_command(group),
        "the control topic does not exist and cannot be created: this member accepts no commands until it exists"
    );
}
