//! Errors of operations on dead letters.

use crate::UnknownGroup;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::publisher::PublishError;
use jiff::Timestamp;

/// The error of an operation on dead letters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// A request to the cluster failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The settings are invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group does not exist.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// No dead-letter topic is named after the group.
    #[error("no topic begins with {prefix} ; see what there is with: evenkeel dlq list")]
    NoTopics {
        /// The prefix that the names would have.
        prefix: String,
    },
    /// The topic's name shows that it holds something other than dead letters.
    #[error("{topic} holds {holds}, not dead letters; nothing was deleted")]
    OtherPurpose {
        /// Name of the topic.
        topic: String,
        /// The content, in words.
        holds: &'static str,
    },
    /// A record to be deleted has no failure headers.
    #[error(
        "{position} carries no failure headers, so it is no dead letter; nothing of {} was \
         deleted. Where it may go all the same, delete it with Kafka's kafka-delete-records",
        .position.topic
    )]
    NoDeadLetter {
        /// Position of the record.
        position: RecordPosition,
    },
    /// The name of the replay log would not be a valid topic name.
    #[error("{topic:?} is too long for a topic that can be replayed, or no topic's name")]
    NoReplayTopic {
        /// Name of the dead-letter topic.
        topic: String,
    },
    /// Dead letters have no destination.
    #[error(
        "{count} letters do not say where they failed, or it has no retry topic, for example {example}; give another \
         --to, or leave them out by a filter such as --class '*'"
    )]
    NoDestination {
        /// Number of such dead letters.
        count: u64,
        /// Position of one of them.
        example: RecordPosition,
    },
    /// The destination of dead letters is their own topic.
    #[error("the letters of {topic} would become letters of {topic} again; give another --to")]
    OwnDestination {
        /// Name of the topic.
        topic: String,
    },
    /// Another replay of the topic is running.
    #[error(
        "{by} has been replaying {topic} since {since}; wait for the end of that run or stop it, and try again"
    )]
    ReplayRuns {
        /// Name of the topic.
        topic: String,
        /// Who started it.
        by: String,
        /// When it started.
        since: Timestamp,
    },
    /// An entry of the replay log could not be written.
    #[error("{doing}")]
    ReplayLog {
        /// The purpose of the entry.
        doing: String,
        /// The error of the publisher.
        #[source]
        source: PublishError,
    },
    /// An entry of the replay log could not be serialised.
    #[error("an entry of the replay log cannot be serialised")]
    Serialise(#[from] serde_json::Error),
}

impl DeadLetterError {
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
