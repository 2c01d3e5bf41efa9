//! Errors of operations on groups.

use crate::UnknownGroup;
use crate::cluster::into_kafka;
use evenkeel::control::Malformed;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::publisher::PublishError;

/// The error of an operation on a group.
///
/// [`Kafka`](Self::Kafka) and [`Publish`](Self::Publish) may be temporary: the operation may be
/// tried again. All others mean that the request does not fit the cluster as it is now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A request to the cluster failed. Whether a retry may help depends on the error.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The connection settings are invalid. Correct them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group does not exist. The error suggests similar names.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// The command is invalid: no member would accept it. Nothing was written.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The group has no control topic, so it accepts no commands. Start a member of it, or create
    /// the topic if members may not.
    #[error(
        "there is no topic {topic}: no member of the group that accepts commands has run yet, or \
         it could not create the topic"
    )]
    NoControlTopic {
        /// Name of the control topic.
        topic: String,
    },
    /// The command could not be written. It is not in force, unless the error is
    /// [`PublishError::Unknown`].
    #[error("failed to publish the command")]
    Publish(#[source] PublishError),
    /// The command could not be serialised, which its types exclude.
    #[error("failed to serialise the command")]
    Serialise(#[from] serde_json::Error),
    /// The scope to resume is not paused. A pause is resumed with the scope that it was given for:
    /// a pause of the group cannot be resumed for one topic.
    #[error("{scope} of {group} is not paused: {paused}")]
    NotPaused {
        /// The scope, in words.
        scope: String,
        /// Name of the group.
        group: String,
        /// The paused scopes, in words.
        paused: String,
    },
    /// The group does not read the topic. Name one of those that it reads.
    #[error("{group} does not read {topic}; it reads {}", .read.join(", "))]
    TopicNotRead {
        /// Name of the group.
        group: String,
        /// Name of the topic.
        topic: String,
        /// The topics that the group reads.
        read: Vec<String>,
    },
    /// The topic has no such partition. Partitions are numbered from 0.
    #[error("{topic} has no partition {partition}, it has {count}")]
    NoPartition {
        /// Name of the topic.
        topic: String,
        /// Partition number.
        partition: i32,
        /// Number of partitions.
        count: usize,
    },
    /// The record does not exist yet: a command for it would concern another record later.
    #[error(
        "there is no record {record}: the next offset of {}/{} is {next}",
        .record.topic,
        .record.partition
    )]
    NoRecord {
        /// Position of the record.
        record: RecordPosition,
        /// Next offset of the partition.
        next: i64,
    },
    /// No member owns a partition that the command concerns, so no record of it waits in a member.
    /// Start a member, or name another scope.
    #[error(
        "no member of {group} owns a partition of that scope, so no record of it can be reached"
    )]
    NothingWaits {
        /// Name of the group.
        group: String,
    },
    /// No member runs that could accept a loss. Members know what is lost; start one.
    #[error(
        "no member of {group} owns a partition of that scope: start one, it knows what is lost"
    )]
    NobodyToAccept {
        /// Name of the group.
        group: String,
    },
    /// The group has not committed to any topic, so the topics that it reads are unknown.
    #[error("{group} has not committed to any topic yet; name those that it reads with --topic")]
    NothingCommitted {
        /// Name of the group.
        group: String,
    },
}

impl GroupError {
    /// Whether the brokers refused the request because of missing rights.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Kafka(KafkaError::Refused { .. }))
    }
}

into_kafka!(GroupError, Self::Config(error) => Ok(KafkaError::Config(error)));
