//! Errors of starting a server, or of creating a topic on it.

use crate::kafka::{ConfigError, KafkaError};
use std::path::PathBuf;

/// No Kafka or other server is available, or a topic could not be created.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Every kind was tried. The text contains the reason for each.
    #[error(
        "no Apache Kafka here: {tried}; set KAFKA_BOOTSTRAP_SERVERS, or install Docker, or Java 17 with Maven"
    )]
    NoneFound {
        /// The reasons, one per kind.
        tried: String,
    },
    /// The requested kind is not available on this machine.
    #[error("{kind}: {reason}")]
    Unavailable {
        /// `Docker`, `Java`, `mock cluster`, `PostgreSQL` or `Redis`.
        kind: &'static str,
        /// The reason, with the last lines that the program printed.
        reason: String,
    },
    /// A topic of this name exists.
    #[error(
        "the topic {topic} exists already; a test takes its names from evenkeel::testing::unique"
    )]
    TopicExists {
        /// Name of the topic.
        topic: String,
    },
    /// The partitions of a new topic have no leader after the time limit.
    #[error("the partitions of the new topic {topic} have no leader; see the broker's log")]
    NoLeader {
        /// Name of the topic.
        topic: String,
    },
    /// The requested port is in use.
    #[error(
        "port {port} of 127.0.0.1 cannot be used: {source}; end what uses it, or choose another"
    )]
    PortTaken {
        /// Port number.
        port: u16,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file or directory cannot be used: of the jars, of a broker or of the development Kafka.
    #[error("{}: {source}", path.display())]
    State {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The brokers did not answer, or refused a request.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The environment's Kafka settings are invalid.
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

    /// The reason, without the kind in front of it.
    #[cfg(feature = "testing")]
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
