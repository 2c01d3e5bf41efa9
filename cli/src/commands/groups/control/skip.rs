//! `evenkeel groups skip`: settles one record without handling it.

use super::give::{CommandArgs, give};
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel::kafka::RecordPosition;
use evenkeel_program::exit::{Ending, Usage};

/// Settle one record without handling it, so that what waits behind it goes on.
///
/// The record goes to the group's dead-letter topic, marked as skipped, and from there it can be
/// replayed. Skipped is what has not started, or waits for its next attempt; an attempt that runs
/// may still succeed, and if it fails, it was the last.
///
/// A record of a batch that no client can read (readiness names it, and `groups lag` says so)
/// stands for the whole batch: that is skipped without dead letters, as nothing of it is known.
#[derive(Debug, Args)]
pub(in crate::commands) struct SkipArgs {
    #[command(flatten)]
    group: GroupArg,

    /// The record.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET")]
    record: RecordPosition,

    #[command(flatten)]
    command: CommandArgs,
}

impl SkipArgs {
    fn action(&self) -> Action {
        Action::Skip {
            record: self.record.clone(),
        }
    }

    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        self.command.check(self.action())
    }
}

/// Gives the command.
pub(in crate::commands) async fn run(
    connection: &ConnectionArgs,
    args: SkipArgs,
) -> anyhow::Result<Ending> {
    let action = args.action();
    give(connection, args.group.name(), args.command, action).await
}
