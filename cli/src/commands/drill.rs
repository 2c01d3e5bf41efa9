//! `evenkeel drill`: what goes wrong some day is made to go wrong now, on a group that runs, and judged.
//!
//! - [`duplicates`]: every event twice · [`selection`]: which events · [`delivery`]: sent, and answered · [`report`], [`row`]: judged

mod delivery;
mod duplicates;
mod report;
mod row;
mod selection;

use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use crate::stop::Stop;
use clap::{Args, Subcommand};

/// Find out on a live group that is none of production what its handlers do when something goes wrong.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    command: DrillCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum DrillCommand {
    Duplicates(duplicates::DuplicatesArgs),
}

impl DrillCommand {
    /// Refuses what means nothing, before anything is asked of the cluster.
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
