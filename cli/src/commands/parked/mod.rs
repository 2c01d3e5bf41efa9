//! `evenkeel parked`: lists and shows waiting keys with their causes, and releases or drops them.
//!
//! - [`list`], [`show`]: read the retry topics; the running group is not involved
//! - [`release`]: commands to the running group
//!
//! Reading is in `evenkeel_ops::waiting_keys`. It decides which keys wait from the unsettled part
//! of the retry topic, as the members do.

mod group_args;
mod list;
mod release;
mod show;

use crate::arguments::connection::ConnectionArgs;
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};

/// List and show the waiting keys of a group; release a key, or dead-letter its first record.
///
/// A record that keeps failing is parked in retry.GROUP.TOPIC, and the later records of its key
/// behind it. Members retry parked records by themselves when they are due.
///
/// list and show change nothing. release and drop are commands to the running group, like those of
/// evenkeel groups.
#[derive(Debug, Args)]
pub(crate) struct ParkedArgs {
    #[command(subcommand)]
    command: ParkedCommand,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The commands of `parked`.
#[derive(Debug, Subcommand)]
enum ParkedCommand {
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    Show(show::ShowArgs),
    Release(release::ReleaseArgs),
    Drop(release::DropArgs),
}

impl ParkedCommand {
    /// Rejects meaningless arguments before any request to the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_) | Self::Show(_) => Ok(()),
            Self::Release(args) => args.check(),
            Self::Drop(args) => args.check(),
        }
    }
}

/// Runs one of the commands.
pub(crate) async fn run(args: ParkedArgs) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    match args.command {
        ParkedCommand::List(args) => list::run(&connection, args).await,
        ParkedCommand::Show(args) => show::run(&connection, args).await,
        ParkedCommand::Release(args) => release::run(&connection, args).await,
        ParkedCommand::Drop(args) => release::run_drop(&connection, args).await,
    }
}
