//! `evenkeel groups`: groups and their lag, and commands to running groups.
//!
//! - [`control`]: commands to the group; [`topics`]: the group's own topics
//! - [`list`], [`describe`], [`lag`], [`members`], [`history`]: listings; [`in_force`]: pauses in a
//!   table

pub(super) mod control;
mod describe;
mod history;
mod in_force;
mod lag;
mod list;
mod members;
mod topics;

use control::{accept_loss, pause, rate, retry_now, skip};

use crate::arguments::connection::ConnectionArgs;
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};

/// List and describe consumer groups, show their lag, and command those that run.
///
/// Commands go to members that are built with evenkeel, through the topic control.GROUP, and are
/// answered by them. Who may write that topic commands the group.
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum GroupsCommand {
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    Describe(describe::DescribeArgs),
    Members(members::MembersArgs),
    Lag(lag::LagArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Skip(skip::SkipArgs),
    RetryNow(retry_now::RetryNowArgs),
    Rate(rate::RateArgs),
    AcceptLoss(accept_loss::AcceptLossArgs),
    Topics(topics::TopicsArgs),
    History(history::HistoryArgs),
}

impl GroupsCommand {
    /// Rejects meaningless arguments before any request to the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_)
            | Self::Members(_)
            | Self::Lag(_)
            | Self::Topics(_)
            | Self::History(_) => Ok(()),
            Self::Describe(args) => args.check(),
            Self::AcceptLoss(args) => args.check(),
            Self::Pause(args) => args.check(),
            Self::Resume(args) => args.check(),
            Self::Skip(args) => args.check(),
            Self::RetryNow(args) => args.check(),
            Self::Rate(args) => args.check(),
        }
    }
}

/// Runs one of the group commands.
pub(crate) async fn run(args: GroupsArgs) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    match args.command {
        GroupsCommand::List(args) => list::run(&connection, args).await,
        GroupsCommand::Describe(args) => describe::run(&connection, args).await,
        GroupsCommand::Members(args) => members::run(&connection, args).await,
        GroupsCommand::Lag(args) => lag::run(&connection, args).await,
        GroupsCommand::Pause(args) => pause::run(&connection, args).await,
        GroupsCommand::Resume(args) => pause::run_resume(&connection, args).await,
        GroupsCommand::Skip(args) => skip::run(&connection, args).await,
        GroupsCommand::RetryNow(args) => retry_now::run(&connection, args).await,
        GroupsCommand::Rate(args) => rate::run(&connection, args).await,
        GroupsCommand::AcceptLoss(args) => accept_loss::run(&connection, args).await,
        GroupsCommand::Topics(args) => topics::run(&connection, args).await,
        GroupsCommand::History(args) => history::run(&connection, args).await,
    }
}
