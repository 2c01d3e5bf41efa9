//! Errors of operations on groups.

use crate::UnknownGroup;
use evenkeel::control::Malformed;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::publisher::PublishError;

/// The error of an operation on a group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A request to the cluster failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group does not exist.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// The command is invalid: no member would accept it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The group has no control topic, so it accepts no commands.
    #[error(
        "there is no topic {topic}: no member of the group that takes commands has run yet, or it could not create it"
    )]
    NoControlTopic {
        /// Name of the control topic.
        topic: String,
    },
    /// The command could not be written.
    #[error("{0}")]
    Publish(#[source] PublishError),
    /// The command could not be serialised.
    #[error("the command cannot be serialised")]
    Serialise(#[from] serde_json::Error),
    /// The scope to resume is not paused.
    #[error("{scope} of {group} is not paused: {paused}")]
    NotPaused {
        /// The scope, in words.
        scope: String,
        /// Name of the group.
        group: String,
        /// The paused scopes, in words.
        paused: String,
    },
    /// The group does not read the topic.
    #[error("{group} does not read {topic}; it reads {}", .read.join(", "))]
    TopicNotRead {
        /// Name of the group.
        group: String,
        /// Name of the topic.
        topic: String,
        /// The topics that the group reads.
        read: Vec<String>,
    },
    /// The topic has no such partition.
    #[error("{topic} has no partition {partition}, it has {count}")]
    NoPartition {
        /// Name of the topic.
        topic: String,
        /// Partition number.
        partition: i32,
        /// Number of partitions.
        count: usize,
    },
    /// The record does not exist yet.
    #[error("there is no record {record}: the next one of {}/{} will be {next}", .record.topic, .record.partition)]
    NoRecord {
        /// Position of the record.
        record: RecordPosition,
        /// Next offset of the partition.
        next: i64,
    },
    /// No member would settle a waiting record.
    #[error("no member of {group} runs that: nothing waits there")]
    NothingWaits {
        /// Name of the group.
        group: String,
    },
    /// No member runs that could accept a loss.
    #[error("no member of {group} runs that: start it, what is lost is told by its members")]
    NobodyToAccept {
        /// Name of the group.
        group: String,
    },
    /// The group has not committed to any topic.
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

    /// Returns the cluster's error, if this is one. Exit codes and hints depend on it.
    ///
    /// # Errors
    /// Returns this error unchanged if it is another one.
    pub fn into_kafka(self) -> Result<KafkaError, Self> {
        match self {
            Self::Kafka(error) => Ok(error),
            Self::Config(error) => Ok(KafkaError::Config(error)),
            other => Err(other),
        }
    }
}
