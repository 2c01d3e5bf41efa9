//! A Kafka for tests, however it is run.

use super::mock::Mock;
use crate::kafka::KafkaConfig;
use crate::kafka::admin::{Admin, NewTopic};
use crate::testing::error::StartError;
use crate::testing::process::reaper::Reaper;
use crate::testing::process::subprocess;
use crate::testing::wait;
use std::collections::BTreeMap;
use std::time::Duration;

/// Time limit of an admin request to a test broker.
pub(in crate::testing) const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);

/// How a test Kafka is run.
///
/// | kind | needs | start | admin requests | freeze |
/// |---|---|---|---|---|
/// | `Docker` | Docker and its image | some seconds | yes | yes |
/// | `Java` | Java 17, and Maven once | about 3 s | yes | yes |
/// | `Mock` | nothing | at once | no | no |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum KafkaKind {
    /// `KAFKA_BOOTSTRAP_SERVERS`, else Docker, else Java, else the mock cluster.
    #[default]
    Auto,
    /// A container, started by the `docker` command.
    Docker,
    /// A local Java process with the jars of Maven Central.
    Java,
    /// librdkafka's mock cluster in this process. It has groups, offsets and three brokers, and
    /// keeps at most 5 MiB or 100,000 records of a partition. It supports no admin requests;
    /// [`TestKafka::create_topic`] works nevertheless.
    Mock,
}

/// A Kafka that was found or started. A started one ends when the value is dropped, at the latest
/// with the process.
///
/// Most tests use the shared one, [`real_kafka`](crate::testing::real_kafka). A test that freezes
/// the broker, or needs other broker settings, starts its own.
///
/// ```no_run
/// use evenkeel::testing::{KafkaKind, TestKafka, unique};
///
/// # async fn example() -> Result<(), evenkeel::testing::StartError> {
/// let kafka = TestKafka::start(KafkaKind::Auto).await?;
/// let topic = unique("orders");
/// kafka.create_topic(&topic, 3).await?;
/// let config = kafka.config();
/// # let _ = config;
/// # Ok(())
/// # }
/// ```
pub struct TestKafka {
    pub(in crate::testing) kind: KafkaKind,
    pub(in crate::testing) config: KafkaConfig,
    pub(in crate::testing) description: String,
    pub(in crate::testing) backing: ClusterOwner,
}

impl std::fmt::Debug for TestKafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestKafka")
            .field("kind", &self.kind)
            .field("config", &self.config)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// The owner of the cluster's lifetime.
pub(in crate::testing) enum ClusterOwner {
    /// Found through the environment; its owner is unknown.
    Found,
    /// A shell that stops the container or process when it is dropped.
    Started {
        _reaper: Reaper,
        /// Freezes and thaws the broker.
        freezer: Freezer,
    },
    /// A thread of this process.
    Mock(Mock),
}

/// How a broker is frozen.
pub(in crate::testing) enum Freezer {
    /// Docker pauses the container of this name.
    Container(String),
    /// A signal to the process whose id is in this file.
    Process(std::path::PathBuf),
}

impl Freezer {
    /// Freezes or thaws the broker.
    async fn set_frozen(&self, freeze: bool) -> Result<(), StartError> {
        let done = match self {
            Self::Container(name) => {
                let order = if freeze { "pause" } else { "unpause" };
                subprocess::output("docker", [order, name], FREEZE_LIMIT).await
            }
            Self::Process(file) => {
                let signal = if freeze { "STOP" } else { "CONT" };
                let script = r#"kill -s "$1" "$(cat "$2")""#;
                let file = file.display().to_string();
                subprocess::output("sh", ["-c", script, "kill", signal, &file], FREEZE_LIMIT).await
            }
        };
        done.map(drop)
            .map_err(|reason| StartError::server("Kafka", reason))
    }
}

/// Time limit of freezing a broker.
pub(in crate::testing) const FREEZE_LIMIT: Duration = Duration::from_secs(10);

impl TestKafka {
    /// Bootstrap servers, comma separated.
    pub fn brokers(&self) -> &str {
        &self.config.brokers
    }

    /// The kind of Kafka and the reason for the choice, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// The kind. `Auto` stands for a Kafka that the environment names.
    pub fn kind(&self) -> KafkaKind {
        self.kind
    }

    /// Connection settings for clients of this Kafka. Those of a Kafka that the environment names
    /// include its login.
    pub fn config(&self) -> KafkaConfig {
        self.config.clone()
    }

    /// Whether [`TestKafka::freeze`] works: the Kafka was started by this process and runs outside
    /// of it.
    pub fn can_freeze(&self) -> bool {
        matches!(self.backing, ClusterOwner::Started { .. })
    }

    /// Suspends the broker: connections remain open, and no request is answered, as with a machine
    /// that stalls. Clients see timeouts instead of refused connections.
    ///
    /// ```no_run
    /// use evenkeel::testing::{TestKafka, required};
    ///
    /// # async fn a_test() -> Result<(), evenkeel::testing::StartError> {
    /// let Some(kafka) = required(TestKafka::start_with(&[]).await) else { return Ok(()) };
    /// kafka.freeze().await?;
    /// // The service must neither lose an event nor leave its group for good.
    /// kafka.thaw().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If [`TestKafka::can_freeze`] returns false, or if Docker or the shell fails.
    pub async fn freeze(&self) -> Result<(), StartError> {
        self.freezer()?.set_frozen(true).await
    }

    /// Resumes the broker after [`TestKafka::freeze`].
    ///
    /// # Errors
    /// As for [`TestKafka::freeze`].
    pub async fn thaw(&self) -> Result<(), StartError> {
        self.freezer()?.set_frozen(false).await
    }

    fn freezer(&self) -> Result<&Freezer, StartError> {
        match &self.backing {
            ClusterOwner::Started { freezer, .. } => Ok(freezer),
            ClusterOwner::Found | ClusterOwner::Mock(_) => Err(StartError::server(
                "Kafka",
                "only a broker that was started for this process can be frozen".to_owned(),
            )),
        }
    }

    /// Creates a topic with the broker's default replication, also on the mock cluster. Returns
    /// when every partition has a leader.
    ///
    /// # Errors
    /// [`StartError::TopicExists`] if the topic exists: use [`unique`](crate::testing::unique)
    /// names. [`StartError::NoLeader`] if a partition has no leader in time.
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), StartError> {
        if let ClusterOwner::Mock(mock) = &self.backing {
            return mock.create_topic(name, partitions).await;
        }
        let admin = Admin::connect(&self.config, ADMIN_TIMEOUT).await?;
        let topic = NewTopic {
            name: name.to_owned(),
            partitions,
            replication: -1,
            config: BTreeMap::new(),
        };
        let (_, existing) = admin.create_topics(&[topic]).await?;
        if !existing.is_empty() {
            return Err(StartError::TopicExists {
                topic: name.to_owned(),
            });
        }
        await_leaders(&admin, name).await
    }
}

/// Waits until every partition has a leader. Earlier, a producer would only retry, but listings
/// would lack the partition.
pub(in crate::testing) async fn await_leaders(
    admin: &Admin,
    topic: &str,
) -> Result<(), StartError> {
    let led = async {
        loop {
            let description = admin.describe_topic(topic).await;
            if description.is_ok_and(|topic| topic.partitions.iter().all(|p| p.leader >= 0)) {
                return;
            }
            tokio::time::sleep(wait::POLL_INTERVAL).await;
        }
    };
    tokio::time::timeout(ADMIN_TIMEOUT, led)
        .await
        .map_err(|_| StartError::NoLeader {
            topic: topic.to_owned(),
        })
}
