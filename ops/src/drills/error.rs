//! Errors of drills.

use crate::waiting_keys::WaitingKeysError;
use evenkeel::kafka::{ConfigError, KafkaError};

/// The error of a drill.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrillError {
    /// A request to the cluster failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group's retry topics could not be found.
    #[error(transparent)]
    WaitingKeys(#[from] WaitingKeysError),
    /// The dead letters could not be read.
    #[error("looking for dead letters")]
    DeadLetters(#[source] KafkaError),
    /// The retry topic has fewer partitions than its source topic.
    #[error(
        "{retry} has not as many partitions as {topic}: start a member of {group}, which gives it more"
    )]
    FewPartitions {
        /// Name of the retry topic.
        retry: String,
        /// Name of the source topic.
        topic: String,
        /// Name of the group.
        group: String,
    },
    /// The named dead-letter topic does not exist.
    #[error(
        "there is no topic {topic}: give --dead-letter-topic the one that {group} writes its dead letters to, or leave it out if \
         that is {default}"
    )]
    NoDeadLetterTopic {
        /// Name of the topic.
        topic: String,
        /// Name of the group.
        group: String,
        /// The default dead-letter topic of the group.
        default: String,
    },
    /// No member of the group runs.
    #[error(
        "no member of {group} runs: start the service, the drill asks those who handle its events"
    )]
    NobodyRuns {
        /// Name of the group.
        group: String,
    },
    /// No member of the group reads any of the topics.
    #[error("no member of {group} reads any of the topics")]
    NobodyReads {
        /// Name of the group.
        group: String,
    },
    /// The thread that reads the retry topics ended.
    #[error("the retry topics are not read any more")]
    AnswersEnded,
}

impl DrillError {
    /// Returns the cluster's error, if this is one. Exit codes and hints depend on it.
    ///
    /// # Errors
    /// Returns this error unchanged if it is another one.
    pub fn into_kafka(self) -> Result<KafkaError, Self> {
        match self {
            Self::Kafka(error) => Ok(error),
            Self::Config(error) => Ok(KafkaError::Config(error)),
            Self::WaitingKeys(error) => error.into_kafka().map_err(Self::WaitingKeys),
            other => Err(other),
        }
    }
}
