//! The workloads: one file each. A new one is a variant here and a file with its flags and its `run`.

mod consume;

use clap::Parser;
use std::process::ExitCode;

/// Measurements of evenkeel beside raw librdkafka, in the same run.
#[derive(Debug, Parser)]
#[command(name = "evenkeel-bench", version)]
pub(crate) enum Workload {
    /// Reads a topic from its beginning: a raw `BaseConsumer` loop beside a keyed consumer with an empty handler.
    Consume(consume::Args),
    /// One turn of one contestant of `consume`, in this process.
    #[command(hide = true)]
    ConsumeTurn(consume::Turn),
}

impl Workload {
    /// Runs it and prints its report.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Consume(args) => consume::run(args).await,
            Self::ConsumeTurn(turn) => consume::take_turn(turn).await,
        }
    }
}
