//! The binary as a child process, without the environment of the tests.

use evenkeel::testing::{KafkaKind, TestKafka, unique};
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// No command of these tests takes that long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How a run ended and what it wrote.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The lines of standard output as JSON.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).expect("every line is JSON");
        self.out.lines().map(parse).collect()
    }

    /// This run, which must have ended with that code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{self:?}");
        self
    }
}

/// The binary with arguments, not yet started.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    for (name, _) in std::env::vars_os() {
        let steers = |prefix| name.to_string_lossy().starts_with(prefix);
        if steers("KAFKA_") || steers("EVENKEEL_") || steers("BOOTSTRAP_SERVERS") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs to the end with `input` on standard input.
pub(crate) async fn run_command(mut command: Command, input: &str) -> Run {
    let mut child = command.spawn().expect("the binary starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    let input = input.to_owned();
    let write = tokio::spawn(async move {
        // A command that fails early does not read its input.
        let _ = stdin.write_all(input.as_bytes()).await;
    });
    let run = end_of(child).await;
    write.await.expect("writing does not panic");
    run
}

/// Runs to the end.
pub(crate) async fn run(args: &[&str]) -> Run {
    run_command(command(args), "").await
}

/// Runs to the end against this Kafka.
pub(crate) async fn run_on(kafka: &TestKafka, args: &[&str], input: &str) -> Run {
    let mut command = command(args);
    command.env("KAFKA_BOOTSTRAP_SERVERS", kafka.brokers());
    run_command(command, input).await
}

/// Waits for the end of a child.
pub(crate) async fn end_of(child: Child) -> Run {
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("the command ends in time")
        .expect("its output can be read");
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("standard output is text"),
        err: String::from_utf8(output.stderr).expect("standard error is text"),
    }
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
    pub(crate) async fn run(&self, args: &[&str], input: &str) -> Run {
        run_command(self.command(args), input).await
    }

    /// Publishes one cancelled order for each id to the topic.
    pub(crate) async fn publish_orders(&self, ids: impl IntoIterator<Item = String>) -> Run {
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
