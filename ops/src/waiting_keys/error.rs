//! Errors of operations on waiting keys.

use crate::UnknownGroup;
use crate::cluster::into_kafka;
use evenkeel::kafka::KafkaError;

/// The error of an operation on waiting keys. Only [`Kafka`](Self::Kafka) may be temporary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitingKeysError {
    /// A request to the cluster failed. Whether a retry may help depends on the error.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The group does not exist. The error suggests similar names.
    #[error(transparent)]
    UnknownGroup(#[from] UnknownGroup),
    /// The group has no retry topic for the source topic: it does not read the topic, or no member
    /// could create the retry topic.
    #[error("the group {group} has no retry topic for {topic}: it would be {retry}")]
    NoRetryTopic {
        /// Name of the group.
        group: String,
        /// Name of the source topic.
        topic: String,
        /// Name of the missing retry topic.
        retry: String,
    },
    /// The group has no retry topics: it parks nothing, or uses another library.
    #[error("the group {group} has no retry topics; see: evenkeel groups topics {group}")]
    NoRetryTopics {
        /// Name of the group.
        group: String,
    },
}

into_kafka!(WaitingKeysError);
