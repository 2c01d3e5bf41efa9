//! Why no Kafka or other server could be had, or a topic not created on it.

use crate::kafka::{ConfigError, KafkaError};
use std::path::PathBuf;

/// Why no Kafka or other server could be had, or a topic not created on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Every kind was tried; the text says for each why it is not to be had.
    #[error(
        "no Apache Kafka here: {tried}; set KAFKA_BOOTSTRAP_SERVERS, or install Docker, or Java 17 with Maven"
    )]
    NoneFound {
        /// The reasons, one per kind.
        tried: String,
    },
    /// The kind asked for is not to be had on this machine.
    #[error("{kind}: {reason}")]
    Unavailable {
        /// `Docker`, `Java`, `mock cluster`, `PostgreSQL` or `Redis`.
        kind: &'static str,
        /// What is missing or went wrong, with the last words of what was started.
        reason: String,
    },
    /// A topic of this name exists.
    #[error(
        "the topic {topic} exists already; a test takes its names from evenkeel::testing::unique"
    )]
    TopicExists {
        /// The topic.
        topic: String,
    },
    /// A new topic's partitions got no leader in time.
    #[error("the partitions of the new topic {topic} have no leader; see the broker's log")]
    NoLeader {
        /// The topic.
        topic: String,
    },
    /// The port asked for is in use.
    #[error(
        "port {port} of 127.0.0.1 cannot be used: {source}; end what uses it, or choose another"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or directory of the jars, of a broker or of the development Kafka cannot be used.
    #[error("{}: {source}", path.display())]
    State {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The brokers that were found or started did not answer or refused.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The environment's settings for Kafka cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl StartError {
    pub(super) fn docker(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "Docker",
            reason: reason.into(),
        }
    }

    pub(super) fn java(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "Java",
            reason: reason.into(),
        }
    }

    pub(super) fn server(name: &'static str, reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: name,
            reason: reason.into(),
        }
    }

    /// Why it is not to be had, without the kind before it.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unavailable { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    pub(super) fn mock(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "mock cluster",
            reason: reason.into(),
        }
    }
}
