//! `evenkeel drill`: injects faults into a running group and reports a verdict.

mod duplicates;

use crate::arguments::connection::ConnectionArgs;
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;

/// Inject faults into a running group that is not in production, and report how its handlers cope.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    command: DrillCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The drills.
#[derive(Debug, Subcommand)]
enum DrillCommand {
    Duplicates(duplicates::DuplicatesArgs),
}

impl DrillCommand {
    /// Rejects meaningless arguments before any request to the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::Duplicates(args) => args.check(),
        }
    }
}

/// Runs one of the drills.
pub(crate) async fn run(args: DrillArgs, stop: Stop) -> anyhow::Result<Ending> {
    args.command.check()?;
    match args.command {
        DrillCommand::Duplicates(drill) => duplicates::run(drill, args.connection, stop).await,
    }
}
