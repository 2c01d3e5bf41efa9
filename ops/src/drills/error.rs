//! Errors of drills.

use crate::cluster::into_kafka;
use crate::waiting_keys::WaitingKeysError;
use evenkeel::kafka::{ConfigError, KafkaError};

/// The error of a drill. [`Kafka`](Self::Kafka), [`DeadLetters`](Self::DeadLetters) and
/// [`AnswersEnded`](Self::AnswersEnded) may be temporary; a drill that is tried again begins anew.
/// The others mean that the group cannot be drilled as it is; their texts name the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DrillError {
    /// A request to the cluster failed. Whether a retry may help depends on the error.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The connection settings are invalid. Correct them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group's retry topics could not be found. Without them a group cannot be drilled.
    #[error(transparent)]
    WaitingKeys(#[from] WaitingKeysError),
    /// The dead letters could not be read, so they could not be left out.
    #[error("failed to read the group's dead letters")]
    DeadLetters(#[source] KafkaError),
    /// The retry topic has fewer partitions than its source topic: some repetitions would have no
    /// partition.
    #[error(
        "{retry} has fewer partitions than {topic}: start a member of {group}, which adds the \
         missing partitions"
    )]
    FewPartitions {
        /// Name of the retry topic.
        retry: String,
        /// Name of the source topic.
        topic: String,
        /// Name of the group.
        group: String,
    },
    /// The named dead-letter topic does not exist. With a wrong name, dead letters would be
    /// repeated like settled events.
    #[error(
        "there is no topic {topic}: name the topic to which {group} writes its dead letters with \
         --dead-letter-topic, or leave the flag out if that is {default}"
    )]
    NoDeadLetterTopic {
        /// Name of the topic.
        topic: String,
        /// Name of the group.
        group: String,
        /// The default dead-letter topic of the group.
        default: String,
    },
    /// No member of the group runs, so nobody would answer.
    #[error("no member of {group} runs: start the service, whose members answer the drill")]
    NobodyRuns {
        /// Name of the group.
        group: String,
    },
    /// No member of the group reads any of the topics. Name topics that it reads.
    #[error("no member of {group} reads any of the topics; name topics that it reads")]
    NobodyReads {
        /// Name of the group.
        group: String,
    },
    /// The thread that reads the retry topics ended, as in a shutdown of the runtime.
    #[error("reading the retry topics ended before the drill did")]
    AnswersEnded,
}

into_kafka!(
    DrillError,
    Self::Config(error) => Ok(KafkaError::Config(error)),
    Self::WaitingKeys(error) => error.into_kafka().map_err(Self::WaitingKeys),
);
