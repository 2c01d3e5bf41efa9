//! `evenkeel groups accept-loss`: accepts the loss of parked records that Kafka deleted.

use super::give::{CommandArgs, ControlCommand};
use super::target::TargetArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::Usage;

/// Accept the loss of parked records that Kafka deleted before they were settled.
///
/// Ends the alarm parked_records of /readyz. No member handles the lost records. Find out first why
/// they were deleted, with evenkeel groups topics GROUP. The acceptance is committed; a second call
/// changes nothing.
///
/// Exit codes: 0 answered; 1 refused; 5 not all owners answered in time.
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
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::AcceptLoss {
                scope: self.target.scope()?,
            },
        })
    }
}
