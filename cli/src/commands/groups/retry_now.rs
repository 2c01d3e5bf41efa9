//! `evenkeel groups retry-now`: what waits for its next attempt does not wait any longer.

use super::order::{self, OrderArgs};
use super::target::RecordOrTargetArgs;
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::Action;

/// Try failed records again at once that wait for their next attempt.
///
/// Those that wait for a dependency that is down go on waiting for its probe. The attempt counts like any other.
#[derive(Debug, Args)]
pub(super) struct RetryNowArgs {
    /// The group.
    group: String,

    #[command(flatten)]
    target: RecordOrTargetArgs,

    #[command(flatten)]
    order: OrderArgs,
}

impl RetryNowArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.order.check(Action::RetryNow { scope })
    }
}

/// Has them tried again.
pub(super) async fn run(connection: &ConnectionArgs, args: RetryNowArgs) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    order::give(
        connection,
        &args.group,
        args.order,
        Action::RetryNow { scope },
    )
    .await
}
