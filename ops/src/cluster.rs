//! How operations connect to a cluster.

use evenkeel::kafka::KafkaConfig;
use std::time::Duration;

/// CloudEvents source of the events that this crate publishes.
pub(crate) const EVENT_SOURCE: &str = "/evenkeel/cli";

/// The cluster that an operation works on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cluster {
    /// Connection settings of its clients.
    pub kafka: KafkaConfig,
    /// Time limit of one request, and of the wait for acknowledgements after a stop.
    pub timeout: Duration,
}

impl Cluster {
    /// Creates a cluster from connection settings and a time limit.
    pub fn new(kafka: KafkaConfig, timeout: Duration) -> Self {
        Self { kafka, timeout }
    }

    /// Producer settings that send each record unchanged, in a batch of its own.
    ///
    /// Brokers reject a batch as a whole, so a record that is too large would fail its neighbours
    /// too. The client's size limit is raised: a record that came from a topic is accepted there.
    pub(crate) fn for_single_records(&self) -> Result<KafkaConfig, evenkeel::kafka::ConfigError> {
        let mut kafka = self.kafka.clone();
        kafka.set("batch.num.messages=1")?;
        kafka.set("message.max.bytes=1000000000")?;
        Ok(kafka)
    }
}
