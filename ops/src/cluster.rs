//! How operations connect to a cluster.
//!
//! Operations open the clients that they need and close them at their end: a tool runs one
//! operation, and a web console must not keep connections for operators who are gone.

use evenkeel::kafka::KafkaConfig;
use std::time::Duration;

/// CloudEvents source of the events that this crate publishes.
pub(crate) const EVENT_SOURCE: &str = "/evenkeel/cli";

/// Gives the error type of an area the method `into_kafka`. The type has the variant `Kafka`;
/// further arms name its other variants that hold the cluster's error.
macro_rules! into_kafka {
    ($error:ident $(, $pattern:pat => $result:expr)* $(,)?) => {
        impl $error {
            /// Returns the cluster's error, if this is one. Exit codes and hints depend on it.
            ///
            /// # Errors
            /// Returns this error unchanged if it is another one.
            pub fn into_kafka(self) -> Result<evenkeel::kafka::KafkaError, Self> {
                match self {
                    Self::Kafka(error) => Ok(error),
                    $($pattern => $result,)*
                    other => Err(other),
                }
            }
        }
    };
}
pub(crate) use into_kafka;

/// The cluster that an operation works on. Cheap to clone.
///
/// ```
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel_ops::Cluster;
/// use std::time::Duration;
///
/// let cluster = Cluster::new(KafkaConfig::new("localhost:9092"), Duration::from_secs(10));
/// assert_eq!(cluster.timeout.as_secs(), 10);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Cluster {
    /// Connection settings of its clients. Their user needs the ACLs of the operation; the errors
    /// of this crate name a missing one.
    pub kafka: KafkaConfig,
    /// Bounds one request, and the wait for acknowledgements after a stop. At the bound the
    /// operation fails with [`KafkaError::Timeout`](evenkeel::kafka::KafkaError::Timeout). A whole
    /// operation may take much longer: it makes many requests.
    pub timeout: Duration,
}

impl Cluster {
    /// Creates a cluster from connection settings and a time limit. Does not connect.
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
