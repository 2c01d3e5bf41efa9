//! Errors of starting a server, or of creating a topic on it.
//!
//! Texts name the missing program or variable, because the reader is a developer whose test was
//! skipped.

use crate::kafka::{ConfigError, KafkaError};
use std::path::PathBuf;

/// No Kafka or other server is available, or a topic could not be created.
///
/// Pass it to [`required`](fn@super::required), which skips or fails the test. A retry succeeds
/// after a change of the machine only, except for [`StartError::NoLeader`] and a broker that was
/// slow.
///
/// ```no_run
/// use evenkeel::testing::{KafkaKind, StartError, TestKafka};
///
/// # async fn example() {
/// match TestKafka::start(KafkaKind::Docker).await {
///     Ok(kafka) => println!("{}", kafka.description()),
///     Err(StartError::Unavailable { kind, reason }) => println!("{kind}: {reason}"),
///     Err(error) => panic!("{error}"),
/// }
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Every kind was tried. The text contains the reason for each. Install one of the named
    /// programs, or start a Kafka and name it in the environment.
    #[error(
        "no Apache Kafka is available: {tried}; set KAFKA_BOOTSTRAP_SERVERS, or install Docker, \
         or Java 17 with Maven"
    )]
    NoneFound {
        /// The reasons, one per kind.
        tried: String,
    },
    /// The requested kind is not available on this machine, or its server did not start or stop in
    /// time.
    #[error("{kind}: {reason}")]
    Unavailable {
        /// `Docker`, `Java`, `mock cluster`, `PostgreSQL`, `Redis` or `program`.
        kind: &'static str,
        /// The reason, with the last lines that the program printed.
        reason: String,
    },
    /// A topic of this name exists. The shared Kafka keeps the topics of other tests.
    #[error("the topic {topic} exists already; use a name from evenkeel::testing::unique")]
    TopicExists {
        /// Name of the topic.
        topic: String,
    },
    /// The partitions of a new topic have no leader after the time limit of 15 s. The topic exists.
    #[error("the partitions of the new topic {topic} have no leader; see the broker's log")]
    NoLeader {
        /// Name of the topic.
        topic: String,
    },
    /// The requested port is in use, or this user may not bind it. Nothing was started.
    #[error(
        "port {port} of 127.0.0.1 cannot be used: {source}; stop the program that uses it, or \
         choose another port"
    )]
    PortTaken {
        /// Port number.
        port: u16,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A file or directory cannot be used: of the jars, of a broker or of the development Kafka.
    /// Free some space, or correct its permissions.
    #[error("{}: {source}", path.display())]
    State {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The brokers did not answer, or refused a request: usually those that the environment names.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// The environment's Kafka settings are invalid. Correct the variable that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl StartError {
    /// The error of Docker or of a container.
    pub(super) fn docker(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "Docker",
            reason: reason.into(),
        }
    }

    /// The error of Java, Maven or a broker that runs with Java.
    pub(super) fn java(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "Java",
            reason: reason.into(),
        }
    }

    /// The error of the server or program `name`.
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

    /// The error of the mock cluster.
    pub(super) fn mock(reason: impl Into<String>) -> Self {
        Self::Unavailable {
            kind: "mock cluster",
            reason: reason.into(),
        }
    }
}
