//! `evenkeel groups pause` and `resume`: stops handling until the pause is removed.

use super::give::{CommandArgs, ControlCommand};
use super::target::PlaceArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::Usage;

/// Pause the handling of a group, a topic or a partition until it is resumed.
///
/// Within a second no further handler starts. Running handlers may end, and their offsets are
/// committed. The members stay in the group and keep their partitions. A pause survives restarts: a
/// member that gets a paused partition handles nothing of it. Safe to repeat.
///
/// Exit codes: 0 answered, or kept for members that start; 1 refused; 5 not all owners answered in
/// time, and the pause stays in force.
#[derive(Debug, Args)]
pub(in crate::commands) struct PauseArgs {
    #[command(flatten)]
    group: GroupArg,

    #[command(flatten)]
    target: PlaceArgs,

    #[command(flatten)]
    command: CommandArgs,
}

/// Remove the pause of a group, a topic or a partition.
///
/// Name exactly what was paused. A partition continues from its position when no other pause covers
/// it.
///
/// Exit codes: 0 answered; 1 refused, or nothing of that scope is paused; 5 not all owners answered
/// in time, and the command stays in force.
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
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::Pause {
                scope: self.target.scope()?,
            },
        })
    }
}

impl ResumeArgs {
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::Resume {
                scope: self.target.scope()?,
            },
        })
    }
}
