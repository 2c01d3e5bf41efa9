//! The binary as a child process, without the environment of the tests.

use evenkeel::testing::{ChildProcess, Finished, KafkaKind, TestKafka, unique};
use serde_json::Value;
use std::time::Duration;
use tokio::process::Command;

/// No command of these tests takes that long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary with arguments, not yet started.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = ChildProcess::command(env!("CARGO_BIN_EXE_evenkeel"));
    command.args(args);
    command
}

/// Starts the binary.
pub(crate) fn start(command: Command) -> ChildProcess {
    ChildProcess::start(command).expect("the binary starts")
}

/// Runs to the end with `input` on standard input.
pub(crate) async fn run_command(command: Command, input: impl AsRef<[u8]>) -> Finished {
    ChildProcess::run(command, input, PATIENCE).await
}

/// Runs to the end.
pub(crate) async fn run(args: &[&str]) -> Finished {
    run_command(command(args), "").await
}

/// Runs to the end against this Kafka.
pub(crate) async fn run_on(kafka: &TestKafka, args: &[&str], input: &str) -> Finished {
    let mut command = command(args);
    command.env("KAFKA_BOOTSTRAP_SERVERS", kafka.brokers());
    run_command(command, input).await
}

/// A mock cluster with one topic.
pub(crate) struct Cluster {
    kafka: TestKafka,
    pub(crate) topic: String,
}

impl Cluster {
    /// Starts it.
    pub(crate) async fn with_topic(partitions: i32) -> Self {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster needs nothing");
        let topic = unique("cli");
        kafka
            .create_topic(&topic, partitions)
            .await
            .expect("the topic is new");
        Self { kafka, topic }
    }

    /// A command against it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = command(args);
        command.env("KAFKA_BOOTSTRAP_SERVERS", self.kafka.brokers());
        command
    }

    /// Runs a command against it to the end.
    pub(crate) async fn run(&self, args: &[&str], input: &str) -> Finished {
        run_command(self.command(args), input).await
    }

    /// Publishes one cancelled order for each id to the topic.
    pub(crate) async fn publish_orders(&self, ids: impl IntoIterator<Item = String>) -> Finished {
        let lines: String = ids
            .into_iter()
            .map(|id| format!("{{\"order_id\":\"{id}\",\"reason\":\"test\"}}\n"))
            .collect();
        let args = [
            "publish",
            "shop.order-cancelled.v1",
            "--topic",
            &self.topic,
            "--output",
            "jsonl",
        ];
        self.run(&args, &lines).await.code(0)
    }

    /// Shows the topic from start to end as JSON lines.
    pub(crate) async fn records(&self, more: &[&str]) -> Vec<Value> {
        let mut args = vec!["consume", &self.topic, "--until-end", "--output", "jsonl"];
        args.extend(more);
        self.run(&args, "").await.code(0).rows()
    }
}
