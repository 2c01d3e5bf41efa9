//! `evenkeel groups retry-now`: retries waiting records immediately.

use super::give::{CommandArgs, ControlCommand};
use super::target::RecordOrTargetArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::Usage;

/// Retry records that wait for their next attempt, in place or parked, at once.
///
/// The attempt counts like any other. Records that wait for a dependency still wait for its probe.
/// For the whole group, records that the flood guard stopped continue, too. A named key continues
/// even if it is held.
///
/// Exit codes: 0 answered; 1 refused; 5 not all owners answered in time.
#[derive(Debug, Args)]
pub(in crate::commands) struct RetryNowArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    target: RecordOrTargetArgs,

    #[command(flatten)]
    command: CommandArgs,
}

impl RetryNowArgs {
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::RetryNow {
                scope: self.target.scope()?,
            },
        })
    }
}
