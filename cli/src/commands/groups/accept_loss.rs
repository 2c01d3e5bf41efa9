//! `evenkeel groups accept-loss`: parked records that Kafka deleted are given up.

use super::order::{self, OrderArgs};
use super::target::TargetArgs;
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::Action;

/// Give up entries of retry topics that Kafka deleted before they were settled.
///
/// Ends the alarm parked_records of /readyz. Look first why they were deleted, with `evenkeel groups topics GROUP`: what was
/// parked there is handled by nobody.
#[derive(Debug, Args)]
pub(super) struct AcceptLossArgs {
    /// The group.
    group: String,

    #[command(flatten)]
    target: TargetArgs,

    #[command(flatten)]
    order: OrderArgs,
}

impl AcceptLossArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = self.target.scope()?;
        self.order.check(Action::AcceptLoss { scope })
    }
}

/// Has them given up.
pub(super) async fn run(
    connection: &ConnectionArgs,
    args: AcceptLossArgs,
) -> anyhow::Result<Ending> {
    let scope = args.target.scope()?;
    let action = Action::AcceptLoss { scope };
    order::give(connection, &args.group, args.order, action).await
}
