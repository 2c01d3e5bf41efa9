//! The test kit and `evenkeel dev`.

/// A Kafka for development runs until it is taken down.
mod dev;
/// A Kafka of every kind is found or started, serves, and ends.
mod kafka;

use crate::support::second_process::{command, role};
use evenkeel::testing::KafkaKind;
use tokio::process::Command;

const DOCKER: &str = "docker";
const JAVA: &str = "java";

/// In the second process: the kind of Kafka that it is to use. `None` in the first one.
fn kind_of_second() -> Option<KafkaKind> {
    match role::<String>()?.as_str() {
        DOCKER => Some(KafkaKind::Docker),
        JAVA => Some(KafkaKind::Java),
        other => panic!("there is no role {other}"),
    }
}

/// A command that runs the test of this name, as libtest lists it, with this kind of Kafka.
fn second_process(test: &str, kind: KafkaKind) -> Command {
    match kind {
        KafkaKind::Docker => command(test, &DOCKER),
        KafkaKind::Java => command(test, &JAVA),
        other => panic!("a test needs no process of its own for {other:?}"),
    }
}
