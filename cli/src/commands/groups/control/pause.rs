//! `evenkeel groups pause` and `resume`: stops handling until the pause is withdrawn.

use super::give::{CommandArgs, give};
use super::target::PlaceArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::{Ending, Usage};

/// Stop handling a group, a topic or a partition until it is resumed.
///
/// Handlers that run may end, and what they did is committed; nothing else starts, within a second.
/// The members stay in the group. A pause outlives them: whoever is assigned a paused partition
/// handles nothing of it.
#[derive(Debug, Args)]
pub(in crate::commands) struct PauseArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    target: PlaceArgs,

    #[command(flatten)]
    command: CommandArgs,
}

/// Take back the pause of exactly what was paused.
///
/// A partition goes on, from where it stands, when no pause is left that covers it.
#[derive(Debug, Args)]
pub(in crate::commands) struct ResumeArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    target: PlaceArgs,

    #[command(flatten)]
    command: CommandArgs,
}

impl PauseArgs {
    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.command.check(Action::Pause { scope })
    }
}

impl ResumeArgs {
    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.command.check(Action::Resume { scope })
    }
}

/// Gives the command to pause.
pub(in crate::commands) async fn run(
    connection: &ConnectionArgs,
    args: PauseArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    give(
        connection,
        args.group.name(),
        args.command,
        Action::Pause { scope },
    )
    .await
}

/// Gives the command to resume.
pub(in crate::commands) async fn run_resume(
    connection: &ConnectionArgs,
    args: ResumeArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    give(
        connection,
        args.group.name(),
        args.command,
        Action::Resume { scope },
    )
    .await
}
