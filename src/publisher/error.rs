//! Why an event is not, or not known to be, on the log.
//!
//! Owns the line between refused and unknown: what the client reports is a refusal only if nothing can have been written.

use super::route::is_of_size;
use rdkafka::types::RDKafkaErrorCode as Code;

/// Why an event is not (known to be) published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload does not follow its schema; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] crate::schema::ValidationError),
    /// The payload could not be serialised; nothing was sent.
    #[error("the payload cannot be serialised: {0}")]
    Serialize(#[from] serde_json::Error),
    /// It was refused for good; it is not on the log.
    #[error("not published to {topic}: {reason}")]
    Refused {
        /// Topic.
        topic: String,
        /// What was said and what to do.
        reason: String,
    },
    /// It is larger than the client or the topic allows; it is not on the log.
    #[error("not published to {topic}: {reason}")]
    TooLarge {
        /// Topic.
        topic: String,
        /// How large it is and what to do.
        reason: String,
    },
    /// The brokers do not take this record, whatever they say to others of the topic; it is not on the log.
    #[error("not published to {topic}: {reason}")]
    Unfit {
        /// Topic.
        topic: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The topic does not exist; the record is not on the log.
    #[error(
        "not published to {topic}: the topic does not exist; create it with: evenkeel topics create {topic}"
    )]
    NoTopic {
        /// Topic.
        topic: String,
    },
    /// The topic has no partition of the number that was asked for; it is not on the log.
    #[error("not published to {topic}: the topic has no such partition")]
    NoPartition {
        /// Topic.
        topic: String,
    },
    /// It may or may not be on the log: publish it again with the same event id, consumers suppress the second.
    #[error("outcome unknown on {topic}: {reason}; publish again with the same id")]
    Unknown {
        /// Topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The client is unusable; the process should end and start again. The event may or may not be on the log.
    #[error("the producer failed for good: {0}")]
    Fatal(String),
}

/// What a flush could not send before its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{records} records were not acknowledged before the deadline")]
pub struct Unsent {
    /// Records without an acknowledgement.
    pub records: usize,
}

/// A failed delivery, kept until its receipt is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Refused(String),
    TooLarge(String),
    Unfit(String),
    NoTopic,
    NoPartition,
    Unknown(String),
    Fatal(String),
}

impl Failure {
    /// The error for a caller.
    pub(super) fn into_error(self, topic: &str) -> PublishError {
        let topic = topic.to_owned();
        match self {
            Self::Refused(reason) => PublishError::Refused { topic, reason },
            Self::TooLarge(reason) => PublishError::TooLarge { topic, reason },
            Self::Unfit(reason) => PublishError::Unfit { topic, reason },
            Self::NoTopic => PublishError::NoTopic { topic },
            Self::NoPartition => PublishError::NoPartition { topic },
            Self::Unknown(reason) => PublishError::Unknown { topic, reason },
            Self::Fatal(reason) => PublishError::Fatal(reason),
        }
    }
}

/// Classes what the client reported about a record of `bytes` bytes.
///
/// The refusals are listed; every other code, also one that a later broker invents, leaves the outcome unknown.
pub(super) fn classify(code: Code, bytes: usize) -> Failure {
    let reason = match code {
        _ if is_of_size(code) => {
            return Failure::TooLarge(format!(
                "the record of {bytes} bytes is larger than the client's message.max.bytes or the topic's \
                 max.message.bytes allows; make it smaller or raise both"
            ));
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition => return Failure::NoTopic,
        Code::UnknownPartition => return Failure::NoPartition,
        Code::InvalidTopic | Code::InvalidArgument => {
            "this is no valid topic name; use letters, digits, '.', '_' and '-', at most 249".to_owned()
        }
        Code::TopicAuthorizationFailed => {
            "this client may not write to it; allow it by an ACL for WRITE on the topic".to_owned()
        }
        Code::ClusterAuthorizationFailed => {
            "this client may not write idempotently; brokers before 3.0 ask for an ACL for IDEMPOTENT_WRITE on the \
             cluster"
                .to_owned()
        }
        Code::InvalidRecord | Code::InvalidDifferentRecord => {
            let reason = "the broker does not accept the record; a compacted topic, for example, needs keys";
            return Failure::Unfit(reason.to_owned());
        }
        Code::InvalidTimestamp => {
            let reason = "the record's timestamp is further from the broker's clock than the topic allows";
            return Failure::Unfit(reason.to_owned());
        }
        Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => format!("the broker does not accept the record: {code}"),
        Code::PurgeQueue => "the publisher ended before it was sent".to_owned(),
        Code::QueueFull => "the client's own queue is full".to_owned(),
        Code::MessageTimedOut => {
            return Failure::Unknown("no acknowledgement within delivery.timeout.ms".to_owned());
        }
        Code::PurgeInflight => {
            return Failure::Unknown("the publisher ended before the acknowledgement".to_owned());
        }
        Code::Fatal => return Failure::Fatal(code.to_string()),
        _ => return Failure::Unknown(code.to_string()),
    };
    Failure::Refused(reason)
}
