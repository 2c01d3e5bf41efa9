//! Errors of operations on dead letters.

use crate::UnknownGroup;
use crate::cluster::into_kafka;
use evenkeel::kafka::RecordPosition;
use evenkeel::kafka::{ConfigError, KafkaError};
use evenkeel::publisher::PublishError;
use jiff::Timestamp;

/// The error of an operation on dead letters.
///
/// [`Kafka`](Self::Kafka) and [`ReplayLog`](Self::ReplayLog) may be temporary: try again. A replay
/// that ended early continues where it ended, a purge deletes what is left. All others mean that
/// the request does not fit the topics as they are; their texts name the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeadLetterError {
    /// A request to the cluster failed. Whether a retry may help depends on the error.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The connection settings are invalid. Correct them.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The group does not exist. The error suggests similar names.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// No dead-letter topic is named after the group: it has dead-lettered nothing yet, or writes
    /// to one topic ([`DeadLetterTopic::One`](evenkeel::recovery::DeadLetterTopic::One)), which
    /// must then be named.
    #[error("no topic name begins with {prefix}; list dead-letter topics with: evenkeel dlq list")]
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
    /// A record to be deleted has no failure headers. Topics before this one may be purged already.
    #[error(
        "{position} carries no failure headers, so it is not a dead letter; nothing of {} was \
         deleted. To delete it anyway, use Kafka's kafka-delete-records",
        .position.topic
    )]
    NoDeadLetter {
        /// Position of the record.
        position: RecordPosition,
    },
    /// The name of the replay log would not be a valid topic name, so replays of the topic cannot
    /// be recorded.
    #[error(
        "{topic:?} cannot be replayed: replays.{topic}, the name of its replay log, is too long or \
         not a valid topic name"
    )]
    NoReplayTopic {
        /// Name of the dead-letter topic.
        topic: String,
    },
    /// Dead letters have no destination: their headers do not name the topic on which they failed,
    /// or the group has no retry topic for it. Nothing was published.
    #[error(
        "{count} dead letters have no destination, for example {example}: they do not name the \
         topic on which they failed, or it has no retry topic; choose another --to, or exclude \
         them with a filter such as --class '*'"
    )]
    NoDestination {
        /// Number of such dead letters.
        count: u64,
        /// Position of one of them.
        example: RecordPosition,
    },
    /// The destination of dead letters is their own topic: each would be found again by the next
    /// replay. Nothing was published.
    #[error("the dead letters of {topic} would be written to {topic} again; choose another --to")]
    OwnDestination {
        /// Name of the topic.
        topic: String,
    },
    /// Another replay of the topic is running. Two at a time would publish dead letters twice.
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
    /// An entry of the replay log could not be written. The replay ends; records that it published
    /// without an entry are found by the next one.
    #[error("failed to write to the replay log while {doing}")]
    ReplayLog {
        /// The purpose of the entry, such as `recording the start of the replay`.
        doing: String,
        /// The error of the publisher.
        #[source]
        source: PublishError,
    },
    /// An entry of the replay log could not be serialised, which its types exclude.
    #[error("failed to serialise an entry of the replay log")]
    Serialise(#[from] serde_json::Error),
}

into_kafka!(DeadLetterError, Self::Config(error) => Ok(KafkaError::Config(error)));
