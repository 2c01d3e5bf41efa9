//! A Kafka that is found or started, for development and for tests; PostgreSQL, Redis, drills,
//! child processes, names and waits for tests.
//!
//! With the feature `dev-kafka`, which `evenkeel dev` and the demo use, this module has
//! [`TestKafka`] and [`dev`]. The feature `testing` brings all of it.
//!
//! [`TestKafka::start`] uses the first of these that is available, and describes its choice in one
//! line:
//!
//! 1. the brokers that `KAFKA_BOOTSTRAP_SERVERS` (or `KAFKA_BROKERS`) names. If they do not answer,
//!    the start fails; it never falls back to another kind;
//! 2. Docker: Apache Kafka's official image, or a local one of the same name;
//! 3. Java 17: Apache Kafka with the jars of Maven Central, downloaded once with Maven into the
//!    user's cache;
//! 4. librdkafka's mock cluster, in this process: in memory, 5 MiB or 100,000 records per
//!    partition, no admin requests.
//!
//! A started server ends when its value is dropped, and when the process ends in any way: a shell
//! waits for the end of a pipe that only this process holds open, then kills the server and removes
//! its data. Therefore a test may keep a broker in a static, and a SIGKILL leaves nothing behind.
//!
//! `postgres` and `redis` use the server that `EVENKEEL_POSTGRES_URL` or `EVENKEEL_REDIS_URL`
//! names. Otherwise they start one from a local program, as a plain process on a free port of
//! 127.0.0.1.
//!
//! This module depends on no consumer, publisher or store, except for the drills. It provides a
//! cluster and creates topics on it.
//!
//! # In a test
//! A test asks for a server, and returns early without one. On a developer's machine it is skipped
//! then, with the reason on standard error. On CI, `EVENKEEL_REQUIRE_KAFKA=1` makes it fail.
//!
//! ```no_run
//! use evenkeel::testing::{real_kafka, unique};
//!
//! # async fn a_test() {
//! let Some(kafka) = real_kafka().await else { return };
//! // The broker is shared by all tests of the process: names keep them apart.
//! let (topic, group) = (unique("orders"), unique("payments"));
//! kafka.create_topic(&topic, 3).await.expect("the topic is created");
//! # let _ = group;
//! # }
//! ```
//!
//! # Environment variables
//! | variable | meaning |
//! |---|---|
//! | `KAFKA_BOOTSTRAP_SERVERS` | a running Kafka to use, with the other `KAFKA_` variables |
//! | `EVENKEEL_POSTGRES_URL` | a running PostgreSQL to use |
//! | `EVENKEEL_REDIS_URL` | a running Redis to use |
//! | `EVENKEEL_REQUIRE_KAFKA=1` | a test without its server fails instead of being skipped |
//! | `JAVA_HOME` | the Java to use, instead of the one on PATH |
//! | `DOCKER_HOST` | a Docker engine that is not local |
//!
//! # Folders
//! | folder | content |
//! |---|---|
//! | `kafka/` | Kafka by Docker, Java or in this process, and a secured one |
//! | `stores/` | PostgreSQL, PgBouncer and Redis as local processes |
//! | `jvm/` | jars from Maven Central, and Java programs of tests |
//! | `process/` | a program under test, processes that end with this one, the output of commands |
//! | `dev/` | a Kafka for development that outlives its command |
//! | `drills/` | injected faults |
//!
//! Unix only: the processes are held by a shell.

#[cfg(feature = "testing")]
mod certificate;
pub mod dev;
#[cfg(feature = "testing")]
pub mod drills;
mod error;
mod jvm;
mod kafka;
mod names;
mod process;
#[cfg(feature = "testing")]
mod skipped_tests;
#[cfg(feature = "testing")]
mod stores;
mod wait;

pub use error::StartError;
pub use kafka::cluster::{KafkaKind, TestKafka};
pub use names::{free_port, unique};
pub use process::reaper::Reaper;
pub use wait::eventually;

#[cfg(feature = "testing")]
pub use {
    certificate::Certificate,
    jvm::program::{JavaProgram, Libraries},
    kafka::records::read_topic,
    kafka::secured::{Listener, PASSWORD, SecuredKafka, secured_kafka},
    kafka::shared::real_kafka,
    process::child::{ChildProcess, Finished},
    skipped_tests::required,
    stores::pgbouncer::TestPgBouncer,
    stores::postgres::{TestPostgres, postgres},
    stores::redis::{TestRedis, redis},
};
