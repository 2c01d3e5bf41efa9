//! Errors of publishing.
//!
//! Separates refused from unknown: a client error counts as a refusal only if nothing can have been
//! written.
//!
//! The distinction carries the guarantee. A caller may handle a refusal in any way, as nothing was
//! written. An unknown outcome must be published again with the same event id, so that the inboxes
//! of the consumers suppress the duplicate. So the list of refusals is closed, and every other code
//! counts as unknown.

use rdkafka::types::RDKafkaErrorCode as Code;

/// Why an event is not published, or may not be.
///
/// | variant | on the log | retry |
/// |---|---|---|
/// | `Invalid`, `Serialize` | no | no: correct the payload |
/// | `TooLarge`, `Unfit` | no | no: correct the record, or the topic's settings |
/// | `NoTopic`, `NoPartition` | no | after an operator created it |
/// | `Refused` | no | after an operator removed the cause, such as a missing ACL |
/// | `Unknown` | perhaps | yes, with the same event id |
/// | `Fatal` | perhaps | with the same event id, in a new process |
///
/// ```no_run
/// use evenkeel::event::{Event, EventType};
/// use evenkeel::publisher::{PublishError, Publisher, Receipt};
///
/// /// Publishes until the outcome is known. The id stays the same, so consumers see one event.
/// async fn publish_surely<T: EventType>(
///     publisher: &Publisher,
///     event: &Event<T>,
/// ) -> Result<Receipt, PublishError> {
///     loop {
///         match publisher.publish(event).await {
///             Err(PublishError::Unknown { reason, .. }) => eprintln!("again: {reason}"),
///             outcome => return outcome,
///         }
///     }
/// }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload does not match its schema. Nothing was sent.
    #[error(transparent)]
    Invalid(#[from] crate::schema::ValidationError),
    /// The payload cannot be serialised. Nothing was sent.
    #[error("the payload cannot be serialised: {0}")]
    Serialize(#[from] serde_json::Error),
    /// The client or the brokers refused the record: a missing permission, an invalid topic name, a
    /// policy of the brokers, or a later record of its key that is on the log already. It is not on
    /// the log.
    #[error("not published to {topic}: {reason}")]
    Refused {
        /// The topic of the record.
        topic: String,
        /// The cause and its remedy.
        reason: String,
    },
    /// The record is larger than the client (`message.max.bytes`) or the topic
    /// (`max.message.bytes`) allows. It is not on the log.
    #[error("not published to {topic}: {reason}")]
    TooLarge {
        /// The topic of the record.
        topic: String,
        /// The size of the record and the remedy.
        reason: String,
    },
    /// The brokers refuse this record, but not others of the topic: it has no key and the topic is
    /// compacted, or its timestamp is too far from the broker's clock. It is not on the log.
    #[error("not published to {topic}: {reason}")]
    Unfit {
        /// The topic of the record.
        topic: String,
        /// The fault of the record.
        reason: String,
    },
    /// The topic does not exist. The record is not on the log. The client has waited for the topic
    /// for `topic.metadata.propagation.max.ms`, five seconds by default.
    #[error(
        "not published to {topic}: the topic does not exist; create it with: evenkeel topics \
         create {topic}"
    )]
    NoTopic {
        /// The topic of the record.
        topic: String,
    },
    /// The topic has no partition of the requested number, or the client does not know it yet. The
    /// record is not on the log.
    #[error("not published to {topic}: the topic has no such partition")]
    NoPartition {
        /// The topic of the record.
        topic: String,
    },
    /// The record may be on the log or not: no broker acknowledged it within `delivery.timeout.ms`,
    /// the publisher ended meanwhile, or a broker returned an error that does not tell. Publish it
    /// again with the same event id: consumers with an inbox suppress the duplicate.
    #[error("outcome unknown on {topic}: {reason}; publish again with the same id")]
    Unknown {
        /// The topic of the record.
        topic: String,
        /// Why the outcome is unknown.
        reason: String,
    },
    /// The client is unusable: end the process and start it again. The event may be on the log or
    /// not. librdkafka reports this if it can no longer guarantee that a retry neither duplicates
    /// nor reorders records. All later records fail with it too.
    #[error("the producer failed permanently: {0}; restart the process")]
    Fatal(String),
}

/// The records that a flush could not settle before its deadline. Their outcome is still open:
/// flush again, or end the process and lose those that were not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{records} records were not acknowledged before the deadline")]
pub struct Unsent {
    /// The number of records without an acknowledgement.
    pub records: usize,
}

/// A failed delivery, kept until its receipt is awaited. Unlike [`PublishError`] it can be cloned,
/// and it has no topic: the delivery has it.
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
    /// Converts the failure into the error for a caller.
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

/// Classifies the client's error for a record of `bytes` bytes.
///
/// The refusals are listed. Every other code, including codes of later brokers, leaves the outcome
/// unknown.
pub(super) fn classify(code: Code, bytes: usize) -> Failure {
    let reason = match code {
        _ if is_of_size(code) => {
            return Failure::TooLarge(format!(
                "the record of {bytes} bytes is larger than the client's message.max.bytes or the \
                 topic's \
                 max.message.bytes allows; make it smaller or raise both"
            ));
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition => return Failure::NoTopic,
        Code::UnknownPartition => return Failure::NoPartition,
        Code::InvalidTopic | Code::InvalidArgument => {
            "this is no valid topic name; use letters, digits, '.', '_' and '-', at most 249"
                .to_owned()
        }
        Code::TopicAuthorizationFailed => {
            "this client may not write to it; allow it by an ACL for WRITE on the topic".to_owned()
        }
        Code::ClusterAuthorizationFailed => {
            "this client may not write idempotently; brokers before 3.0 ask for an ACL for \
             IDEMPOTENT_WRITE on the \
             cluster"
                .to_owned()
        }
        Code::InvalidRecord | Code::InvalidDifferentRecord => {
            let reason =
                "the broker does not accept the record; a compacted topic, for example, needs keys";
            return Failure::Unfit(reason.to_owned());
        }
        Code::InvalidTimestamp => {
            let reason =
                "the record's timestamp is further from the broker's clock than the topic allows";
            return Failure::Unfit(reason.to_owned());
        }
        Code::PolicyViolation
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType => {
            format!("the broker does not accept the record: {code}")
        }
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

/// Whether this code may mean that the brokers refuse a whole batch because of one of its records.
pub(super) fn is_of_batch(code: Code) -> bool {
    is_of_size(code)
        || matches!(
            code,
            Code::InvalidRecord | Code::InvalidTimestamp | Code::InvalidDifferentRecord
        )
}

/// Whether this code means that the brokers refuse the batch for its size.
pub(super) fn is_of_size(code: Code) -> bool {
    matches!(
        code,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize
    )
}
