//! `evenkeel groups retry-now`: retries waiting records immediately.

use super::give::{CommandArgs, give};
use super::target::RecordOrTargetArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::arguments::group_args::GroupArg;
use clap::Args;
use evenkeel::control::Action;
use evenkeel_program::exit::{Ending, Usage};

/// Try failed records again at once that wait for their next attempt.
///
/// Those that wait for a dependency that is down go on waiting for its probe. The attempt counts
/// like any other.
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
    pub(in crate::commands) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.command.check(Action::RetryNow { scope })
    }
}

/// Gives the command.
pub(in crate::commands) async fn run(
    connection: &ConnectionArgs,
    args: RetryNowArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    give(
        connection,
        args.group.name(),
        args.command,
        Action::RetryNow { scope },
    )
    .await
}
