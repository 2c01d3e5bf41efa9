//! What can go wrong with a cluster, in words that say what to do.
//!
//! Owns the classes that a caller acts on (and that the tool's exit codes follow), and how the client's error codes fall
//! into them. Never holds a secret: addresses are printed without user information.

use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode as Code};
use std::time::Duration;

/// A cluster that could not be reached or refused us.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    /// No broker answered.
    #[error(
        "no broker answered at {brokers} within {seconds} s: {cause}; check the address, that Kafka runs and that its advertised listeners can be reached from here"
    )]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// How long was waited.
        seconds: u64,
        /// What the client said.
        cause: String,
    },
    /// The cluster is there, but the answer took too long.
    #[error("{what} took longer than {seconds} s; try again, or allow more time")]
    Timeout {
        /// What was tried.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Authentication or authorisation failed.
    #[error("{what} refused: {cause}; check the credentials and the ACLs")]
    Refused {
        /// What was tried.
        what: String,
        /// What the broker said.
        cause: String,
    },
    /// A topic does not exist.
    #[error("the topic {topic} does not exist; create it with: evenkeel topics create {topic}")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// Kafka would delete from this topic what a group has to keep.
    #[error("the topic {topic} is not safe to use: {reason}; mend it with: {command}")]
    UnsafeTopic {
        /// The topic.
        topic: String,
        /// Its setting, and what comes of it.
        reason: String,
        /// What mends it.
        command: String,
    },
    /// The brokers cannot do this, as librdkafka's mock cluster or a very old Kafka.
    #[error("{what} is not supported by these brokers: {cause}")]
    Unsupported {
        /// What was tried.
        what: String,
        /// What the client said.
        cause: String,
    },
    /// An answer that could not be read.
    #[error("{what}: the answer could not be read: {cause}")]
    Unreadable {
        /// What was tried.
        what: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A batch on the log that the client cannot read.
    #[error("{0}")]
    UnreadableBatch(super::UnreadableBatch),
    /// Anything else the client reported.
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: String,
        /// The client's error.
        source: ClientError,
    },
}

impl KafkaError {
    /// Whether the brokers refuse a topic's name. Of names that can be one, they refuse those that collide with others.
    pub(crate) fn is_about_a_name(&self) -> bool {
        let Self::Client { source, .. } = self else {
            return false;
        };
        source.rdkafka_error_code() == Some(Code::InvalidTopic)
    }
}

/// The error of a request, by what its user can do about it.
pub(crate) fn failed(what: &str, error: ClientError) -> KafkaError {
    if matches!(
        error,
        ClientError::ClientConfig(..) | ClientError::ClientCreation(_)
    ) {
        return super::ConfigError::from_client(error).into();
    }
    let what = what.to_owned();
    match error.rdkafka_error_code() {
        Some(
            code @ (Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication),
        ) => KafkaError::Refused {
            what,
            cause: code.to_string(),
        },
        Some(code @ (Code::UnsupportedFeature | Code::UnsupportedVersion)) => {
            KafkaError::Unsupported {
                what,
                cause: code.to_string(),
            }
        }
        _ => KafkaError::Client {
            what,
            source: error,
        },
    }
}

/// [`failed`] for a request that needs a connection and was given `timeout`.
pub(super) fn unanswered(
    brokers: &str,
    what: &str,
    timeout: Duration,
    error: ClientError,
) -> KafkaError {
    match error.rdkafka_error_code() {
        Some(
            Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::AllBrokersDown,
        ) => unreachable(brokers, timeout, &error.to_string()),
        _ => failed(what, error),
    }
}

/// No broker answered within `timeout`.
pub(super) fn unreachable(brokers: &str, timeout: Duration, cause: &str) -> KafkaError {
    KafkaError::Unreachable {
        brokers: super::config::mask_userinfo(brokers).into_owned(),
        seconds: timeout.as_secs(),
        cause: cause.to_owned(),
    }
}
