//! A Kafka found or started for tests, the demo, `evenkeel dev` and the tests of other crates; PostgreSQL and Redis for
//! tests; names and waits.
//!
//! [`TestKafka::start`] takes the first of these that this machine has, and says in one line which and why:
//!
//! 1. the brokers that `KAFKA_BOOTSTRAP_SERVERS` (or `KAFKA_BROKERS`) names: somebody chose them, so they are used or
//!    reported as unreachable, never passed over;
//! 2. Docker: Apache Kafka's own image, or a local one of the same name;
//! 3. Java 17: Apache Kafka from Maven Central's jars, downloaded once with Maven into the user's cache;
//! 4. librdkafka's mock cluster, in this process: in memory, 5 MiB or 100,000 records a partition, no admin requests.
//!
//! What was started ends with the value, and with the process however that ends: a shell waits for the end of a pipe that
//! only we hold open, then kills and removes. So a test may keep a broker in a static, and a SIGKILL leaves nothing behind.
//!
//! [`postgres`] and [`redis`] take the server that `EVENKEEL_POSTGRES_URL` or `EVENKEEL_REDIS_URL` names, or else start one
//! from a program of this machine, as a plain process on a free port of 127.0.0.1.
//!
//! This module knows no consumer, publisher or store; it only brings a cluster and creates topics on it.

mod broker;
pub mod dev;
mod docker;
pub mod drills;
mod environment;
mod error;
mod jars;
mod java;
mod java_program;
mod leash;
mod mock;
mod names;
mod postgres;
mod redis;
mod server;
mod shared;
mod tool;
mod wait;

pub use error::StartError;
pub use java_program::{JavaProgram, Libraries};
pub use names::unique;
pub use postgres::{TestPostgres, postgres};
pub use redis::{TestRedis, redis};
pub use shared::{real_kafka, required};
pub use wait::eventually;

use crate::kafka::KafkaConfig;
use crate::kafka::admin::{Admin, NewTopic};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an admin request to a test broker may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);

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

/// A Kafka that was found or started; what was started ends when this is dropped, at the latest with the process.
pub struct TestKafka {
    kind: KafkaKind,
    config: KafkaConfig,
    description: String,
    backing: Backing,
}

/// What keeps the cluster alive.
enum Backing {
    /// Somebody else.
    Found,
    /// A shell that ends a container or a process as soon as it is dropped.
    Leashed {
        _leash: leash::Leash,
        /// How the whole of it is stopped where it stands, and has it go on.
        freezer: Freezer,
    },
    /// A thread of this process.
    Mock(mock::Mock),
}

/// What stops a broker where it stands.
enum Freezer {
    /// Docker, by the container's name.
    Container(String),
    /// A signal to the process whose id is in this file.
    Process(std::path::PathBuf),
}

impl Freezer {
    async fn order(&self, freeze: bool) -> Result<(), StartError> {
        let done = match self {
            Self::Container(name) => {
                let order = if freeze { "pause" } else { "unpause" };
                tool::output("docker", [order, name], FREEZE_LIMIT).await
            }
            Self::Process(file) => {
                let signal = if freeze { "STOP" } else { "CONT" };
                let script = r#"kill -s "$1" "$(cat "$2")""#;
                let file = file.display().to_string();
                tool::output("sh", ["-c", script, "kill", signal, &file], FREEZE_LIMIT).await
            }
        };
        done.map(drop)
            .map_err(|reason| StartError::server("Kafka", reason))
    }
}

/// How long freezing a broker may take.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);

impl TestKafka {
    /// Finds or starts one of `kind`.
    ///
    /// [`KafkaKind::Auto`] goes through the list above and only ends without a Kafka when the environment names brokers
    /// that do not answer. Any other kind is used or reported as not to be had. The first start may download: about
    /// 45 MB of jars, or the image.
    pub async fn start(kind: KafkaKind) -> Result<Self, StartError> {
        match kind {
            KafkaKind::Auto => {
                Self::first_of(&[KafkaKind::Docker, KafkaKind::Java, KafkaKind::Mock]).await
            }
            KafkaKind::Docker => docker::start().await,
            KafkaKind::Java => java::start(&[]).await,
            KafkaKind::Mock => mock::start(),
        }
    }

    /// Apache Kafka as a Java process with broker settings of its own, for what the shared one cannot show: `name`, `value`.
    ///
    /// # Errors
    /// Where there is no Java, or no jars of Kafka and no Maven to fetch them with.
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self, StartError> {
        java::start(settings).await
    }

    /// Apache Kafka as a Java process that keeps its data in `directory`, in `data/TOPIC-PARTITION/`, and is killed when this is
    /// dropped. Started again in the same directory it is the same cluster at the same address, so that a test can change its
    /// files in between, as a lost disk or a restored one does.
    ///
    /// # Errors
    /// As with [`TestKafka::start_with`].
    pub async fn start_in(directory: &std::path::Path) -> Result<Self, StartError> {
        java::start_in(directory).await
    }

    /// The Apache Kafka that the tests of this process share: found or started by the first that asks, gone with the process.
    ///
    /// Tests keep out of each other's way by [`unique`] names. Never the mock cluster: where neither the environment nor
    /// Docker nor Java has one, the error says why for each, the same one at every call.
    pub async fn shared_real() -> Result<&'static TestKafka, StartError> {
        shared::shared_real().await
    }

    /// Bootstrap servers, comma separated.
    pub fn brokers(&self) -> &str {
        &self.config.brokers
    }

    /// What is used and why, in one line.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Which kind it is; `Auto` stands for one found through the environment.
    pub fn kind(&self) -> KafkaKind {
        self.kind
    }

    /// Connection settings.
    pub fn config(&self) -> KafkaConfig {
        self.config.clone()
    }

    /// Whether it can be frozen: it was started for this process, and is not a part of it.
    pub fn can_freeze(&self) -> bool {
        matches!(self.backing, Backing::Leashed { .. })
    }

    /// Stops it where it stands: connections stay open, and nothing answers.
    ///
    /// # Errors
    /// Where [`TestKafka::can_freeze`] says no, or Docker or the shell does.
    pub async fn freeze(&self) -> Result<(), StartError> {
        self.freezer()?.order(true).await
    }

    /// Has it go on after [`TestKafka::freeze`].
    ///
    /// # Errors
    /// As for [`TestKafka::freeze`].
    pub async fn thaw(&self) -> Result<(), StartError> {
        self.freezer()?.order(false).await
    }

    fn freezer(&self) -> Result<&Freezer, StartError> {
        match &self.backing {
            Backing::Leashed { freezer, .. } => Ok(freezer),
            Backing::Found | Backing::Mock(_) => Err(StartError::server(
                "Kafka",
                "only a broker that was started for this process can be frozen".to_owned(),
            )),
        }
    }

    /// Creates a topic with the broker's default replication, on the mock cluster too; returns when its leaders are known.
    ///
    /// A topic that exists already is an error: names in tests are [`unique`].
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), StartError> {
        if let Backing::Mock(mock) = &self.backing {
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

    /// The brokers of the environment if it names any, else the first of `kinds` that is to be had.
    async fn first_of(kinds: &[KafkaKind]) -> Result<Self, StartError> {
        if let Some(found) = environment::find().await? {
            return Ok(found);
        }
        let mut passed_over = vec![format!("{} is not set", environment::VARIABLE)];
        for kind in kinds {
            match Box::pin(Self::start(*kind)).await {
                Ok(mut kafka) => {
                    kafka.description += &format!(" ({})", passed_over.join("; "));
                    return Ok(kafka);
                }
                Err(error) => passed_over.push(error.to_string()),
            }
        }
        Err(StartError::NoneFound {
            tried: passed_over.join("; "),
        })
    }
}

/// Waits until every partition has a leader: a record produced earlier would only be retried, but lists would lack it.
async fn await_leaders(admin: &Admin, topic: &str) -> Result<(), StartError> {
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
