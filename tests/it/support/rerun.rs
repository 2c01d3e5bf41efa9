//! Running one test of this binary again as a process of its own, which can be killed or given another environment.

use evenkeel::testing::KafkaKind;
use std::process::{Command, Stdio};

/// Tells the second process that it is one, and which Kafka to use.
const KIND: &str = "EVENKEEL_IT_RERUN_KIND";

/// In the second process: the kind of Kafka it is to use.
pub(crate) fn asked_for() -> Option<KafkaKind> {
    match std::env::var(KIND).ok()?.as_str() {
        "docker" => Some(KafkaKind::Docker),
        "java" => Some(KafkaKind::Java),
        other => panic!("{KIND}={other}"),
    }
}

/// A command that runs the test of this name, as libtest lists it, with `kind`.
pub(crate) fn this_test(name: &str, kind: KafkaKind) -> Command {
    let kind = match kind {
        KafkaKind::Docker => "docker",
        KafkaKind::Java => "java",
        other => panic!("a test needs no process of its own for {other:?}"),
    };
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command
        .args([name, "--exact", "--nocapture"])
        .env(KIND, kind)
        .stdin(Stdio::null());
    command
}
