//! `evenkeel groups`: groups and their lag, and commands to running groups.
//!
//! - [`list`], [`describe`], [`lag`], [`members`], [`history`]: listings
//! - [`pauses`]: pauses in a table
//! - [`control`]: commands to the group; [`topics`]: the group's own topics
//!
//! Listings work on every consumer group. What only evenkeel's members know (pauses, dependencies
//! that are down, processes) comes from the topic `control.GROUP`; a group without that topic is
//! listed without it. All commands may be dropped at any time: a control command that was written
//! stays in force.

pub(super) mod control;
mod describe;
mod history;
mod lag;
mod list;
mod members;
mod pauses;
mod topics;

use control::{ControlCommand, accept_loss, pause, rate, retry_now, skip};

use crate::arguments::connection::ConnectionArgs;
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};

/// List and describe consumer groups, show their lag, and control running groups.
///
/// pause, resume, skip, retry-now, rate and accept-loss are commands to members that are built with
/// evenkeel. They go through the topic control.GROUP, take effect within a second, and are answered
/// by the members that they concern. Whoever may write to that topic commands the group. topics
/// changes something only with --execute; the other commands change nothing.
#[derive(Debug, Args)]
pub(crate) struct GroupsArgs {
    #[command(subcommand)]
    command: GroupsCommand,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The commands of `groups`.
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
    /// The command to the running group. `None` for a listing, and for `topics`.
    fn control(&self) -> Result<Option<ControlCommand<'_>>, Usage> {
        match self {
            Self::Pause(args) => args.command(),
            Self::Resume(args) => args.command(),
            Self::Skip(args) => args.command(),
            Self::RetryNow(args) => args.command(),
            Self::Rate(args) => args.command(),
            Self::AcceptLoss(args) => args.command(),
            _ => return Ok(None),
        }
        .map(Some)
    }

    /// Rejects meaningless arguments before any request to the cluster.
    fn check(&self) -> Result<(), Usage> {
        match (self, self.control()?) {
            (_, Some(command)) => command.check(),
            (Self::Describe(args), None) => args.check(),
            _ => Ok(()),
        }
    }
}

/// Runs one of the group commands.
pub(crate) async fn run(args: GroupsArgs) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    if let Some(command) = args.command.control()? {
        return command.give(&connection).await;
    }
    match args.command {
        GroupsCommand::List(args) => list::run(&connection, args).await,
        GroupsCommand::Describe(args) => describe::run(&connection, args).await,
        GroupsCommand::Members(args) => members::run(&connection, args).await,
        GroupsCommand::Lag(args) => lag::run(&connection, args).await,
        GroupsCommand::Topics(args) => topics::run(&connection, args).await,
        GroupsCommand::History(args) => history::run(&connection, args).await,
        GroupsCommand::Pause(_)
        | GroupsCommand::Resume(_)
        | GroupsCommand::Skip(_)
        | GroupsCommand::RetryNow(_)
        | GroupsCommand::Rate(_)
        | GroupsCommand::AcceptLoss(_) => unreachable!("given above"),
    }
}
