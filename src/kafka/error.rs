//! What can go wrong with a cluster, in words that say what to do.

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
    /// Anything else the client reported.
    #[error("{what}: {source}")]
    Client {
        /// What was tried.
        what: String,
        /// The client's error.
        source: rdkafka::error::KafkaError,
    },
}
