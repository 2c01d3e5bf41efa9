//! A cluster with the shop's topics, and running commands against it.

use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::testing::{ChildProcess, Finished, KafkaKind, TestKafka, read_topic};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// No wait of these tests takes that long unless a command hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An event on the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) ty: String,
    pub(crate) source: String,
    pub(crate) key: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) data: Value,
}

/// A cluster of one test, and a folder for its files.
pub(crate) struct Shop {
    kafka: Option<TestKafka>,
    config: KafkaConfig,
    folder: TempDir,
}

/// The `orders` command, without broker variables of the test's environment.
pub(crate) fn orders() -> Command {
    ChildProcess::command(env!("CARGO_BIN_EXE_orders"))
}

/// The `stock` command, likewise.
pub(crate) fn stock() -> Command {
    ChildProcess::command(env!("CARGO_BIN_EXE_stock"))
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster needs nothing");
        for topic in ["shop.orders", "shop.deliveries"] {
            kafka.create_topic(topic, 6).await.expect("a new topic");
        }
        let folder = tempfile::tempdir().expect("a temporary folder is created");
        Self {
            config: kafka.config(),
            kafka: Some(kafka),
            folder,
        }
    }

    /// Stops the brokers for good.
    pub(crate) fn lose_brokers(&mut self) {
        self.kafka = None;
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.config.brokers
    }

    /// Writes a file into the test's folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        path
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a command against this cluster.
    pub(crate) fn start(&self, mut command: Command, arguments: &[&str]) -> ChildProcess {
        command.args(["--brokers", self.brokers()]).args(arguments);
        ChildProcess::start(command).expect("the binary was built with this test")
    }

    /// Runs a command against this cluster to its end.
    pub(crate) async fn run(&self, command: Command, arguments: &[&str]) -> Finished {
        self.start(command, arguments).finished(PATIENCE).await
    }

    /// All records of a topic, by partition and offset.
    pub(crate) async fn published(&self, topic: &str) -> Vec<Published> {
        let records = read_topic(&self.config, topic, PATIENCE).await.into_iter();
        let event = |record: LogRecord| {
            let header = |name| text(record.headers.last(name).unwrap_or_default());
            Published {
                id: header("ce_id"),
                ty: header("ce_type"),
                source: header("ce_source"),
                key: text(record.key.as_deref().unwrap_or_default()),
                partition: record.partition,
                offset: record.offset,
                data: serde_json::from_slice(record.value.as_deref().unwrap_or_default())
                    .expect("the bytes are JSON"),
            }
        };
        let mut events: Vec<Published> = records.map(event).collect();
        events.sort_by_key(|event| (event.partition, event.offset));
        events
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("the bytes are UTF-8")
}

/// Runs a command to its end without a cluster.
pub(crate) async fn run_alone(mut command: Command, arguments: &[&str]) -> Finished {
    command.args(arguments);
    ChildProcess::run(command, "", PATIENCE).await
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> &str {
    path.to_str().expect("a temporary path is text")
}
