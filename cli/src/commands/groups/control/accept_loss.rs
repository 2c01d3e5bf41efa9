//! `evenkeel groups accept-loss`: accepts the loss of parked records that Kafka deleted.

use super::give::{CommandArgs, give};
use super::target::TargetArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::{Ending, Usage};

/// Give up entries of retry topics that Kafka deleted before they were settled.
///
/// Ends the alarm parked_records of /readyz. Look first why they were deleted, with `evenkeel
/// groups topics GROUP`: what was parked there is handled by nobody.
#[derive(Debug, Args)]
pub(in crate::commands) struct AcceptLossArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    command: CommandArgs,
}

impl AcceptLossArgs {
    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.command.check(Action::AcceptLoss { scope })
    }
}

/// Gives the command.
pub(in crate::commands) async fn run(
    connection: &ConnectionArgs,
    args: AcceptLossArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    let action = Action::AcceptLoss { scope };
    give(connection, args.group.name(), args.command, action).await
}
