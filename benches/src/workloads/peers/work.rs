//! What a contestant's process gets, and how a Rust one is started and stopped.

use crate::spec::Spec;
use ::evenkeel::event::EventType;
use ::evenkeel::testing::unique;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Begins the name of a contestant that is to run in this process.
const PROCESS: &str = "process ";

/// Transactions at the same time: the default of evenkeel's inbox. Hand-written code has as many
/// loops, and Spring Kafka as many threads.
pub(super) const LANES: usize = 4;
/// The topic of the events that contestants publish.
pub(super) const RESULTS: &str = "evenkeel-bench.peers";
/// The CloudEvents source of these events.
pub(super) const SOURCE: &str = "/bench/peers";

/// The event that is published about an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EffectBooked {
    pub(super) key: u32,
    pub(super) place: u64,
}

impl EventType for EffectBooked {
    const TYPE: &'static str = "bench.effect-booked.v1";
    const TOPIC: &'static str = RESULTS;

    fn key(&self) -> String {
        crate::measure::result_check::key(self.key as usize)
    }
}

/// What shares a transaction in the handler's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// An event.
    Event,
    /// The events of a batch.
    Batch,
}

/// The input of a contestant's process, beside the brokers and the topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) contestant: String,
    pub(super) group: String,
    /// URL of the database.
    pub(super) database: String,
}

impl Work {
    /// The work of the contestant of this turn, in a group of its own.
    pub(super) fn new(spec: &Spec, database: &str) -> Self {
        Self {
            contestant: spec.contestant.clone(),
            group: unique("bench-peers"),
            database: database.to_owned(),
        }
    }

    /// The work that is to be done in this process, if it is one of a contestant.
    pub(super) fn of(spec: &Spec) -> anyhow::Result<Option<Self>> {
        let work = spec.contestant.strip_prefix(PROCESS);
        Ok(work.map(serde_json::from_str).transpose()?)
    }

    /// The command that runs this program as the contestant.
    pub(super) fn command(&self, spec: &Spec) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let spec = serde_json::to_string(&self.to_spec(spec)?)?;
        command.arg("--turn").arg(spec);
        Ok(command)
    }

    fn to_spec(&self, spec: &Spec) -> anyhow::Result<Spec> {
        Ok(Spec {
            contestant: format!("{PROCESS}{}", serde_json::to_string(self)?),
            ..spec.clone()
        })
    }
}

/// Cancelled by SIGTERM.
pub(super) fn stop_by_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stopped.cancel();
    });
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn a_contestants_process_gets_its_work_and_others_do_not() {
        let spec = Spec {
            workload: Workload::Peers,
            contestant: "hand-written".to_owned(),
            brokers: "127.0.0.1:9092".to_owned(),
            topic: "orders".to_owned(),
            data: crate::workloads::throughput::consume::DATA,
            properties: Vec::new(),
        };
        assert_eq!(Work::of(&spec).expect("no work is no error"), None);
        let work = Work::new(&spec, "postgres://localhost/bench");
        let spec = work.to_spec(&spec).expect("it serialises");
        assert_eq!(Work::of(&spec).expect("it is readable"), Some(work));
    }
}
