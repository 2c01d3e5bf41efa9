//! `evenkeel groups skip`: dead-letters one record without handling it.

use super::give::{CommandArgs, ControlCommand};
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel::kafka::RecordPosition;
use evenkeel_program::exit::Usage;

/// Dead-letter one record without handling it, so that the records behind it continue.
///
/// The record is written to the group's dead-letter topic with the stage skipped, and can be
/// replayed. An attempt that is running may still succeed; if it fails, it was the last. Safe to
/// repeat: a settled record is not skipped.
///
/// A record of a batch that no client can read (/readyz and groups lag name it) stands for the
/// whole batch. The batch is skipped without dead letters, because its records are unknown.
///
/// Exit codes: 0 skipped, pending or already settled; 1 refused, or the record does not exist; 5
/// the owner did not answer in time, and the command stays in force.
#[derive(Debug, Args)]
pub(in crate::commands) struct SkipArgs {
    #[command(flatten)]
    group: GroupArg,

    /// The record in its source topic.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET")]
    record: RecordPosition,

    #[command(flatten)]
    command: CommandArgs,
}

impl SkipArgs {
    /// The command that the arguments describe.
    pub(in crate::commands) fn command(&self) -> Result<ControlCommand<'_>, Usage> {
        Ok(ControlCommand {
            group: self.group.name(),
            flags: &self.command,
            action: Action::Skip {
                record: self.record.clone(),
            },
        })
    }
}
