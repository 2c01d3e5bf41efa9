//! A Kafka found or started for tests, the demo and users' own tests; names, waits and faults.

use crate::kafka::KafkaConfig;
use std::time::Duration;

/// Which Kafka to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KafkaKind {
    /// `KAFKA_BOOTSTRAP_SERVERS`, then Docker, then Java, then the mock cluster.
    #[default]
    Auto,
    /// A container through testcontainers.
    Docker,
    /// A local Java process from Maven Central's jars.
    Java,
    /// librdkafka's mock cluster in this process.
    Mock,
}

/// A Kafka that was found or started; what was started ends when this is dropped.
pub struct TestKafka {}

impl TestKafka {
    /// Finds or starts one; the line says what it uses and why.
    pub async fn start(_kind: KafkaKind) -> Result<Self, StartError> {
        todo!()
    }
    /// Starts a real Apache Kafka or says why there is none. One per process, shared by its tests.
    pub async fn shared_real() -> Result<&'static TestKafka, StartError> {
        todo!()
    }
    /// Bootstrap servers.
    pub fn brokers(&self) -> &str {
        todo!()
    }
    /// What is used and why, in one line.
    pub fn description(&self) -> &str {
        todo!()
    }
    /// Which kind it is; `Auto` stands for one found through the environment.
    pub fn kind(&self) -> KafkaKind {
        todo!()
    }
    /// Connection settings.
    pub fn config(&self) -> KafkaConfig {
        KafkaConfig::new(self.brokers())
    }
    /// Creates a topic (on the mock cluster too).
    pub async fn create_topic(&self, _name: &str, _partitions: i32) -> Result<(), StartError> {
        todo!()
    }
}

/// Why no Kafka could be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

/// A name that no other test uses: `prefix` and a random part.
pub fn unique(_prefix: &str) -> String {
    todo!()
}

/// Polls `check` until it returns a value, for at most `within`; panics with `what` otherwise.
pub async fn eventually<T, F, Fut>(_what: &str, _within: Duration, _check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: std::future::Future<Output = Option<T>>,
{
    todo!()
}
