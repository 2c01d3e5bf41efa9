//! `evenkeel groups skip`: one record counts as settled without being handled.

use super::order::{self, OrderArgs};
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::Action;
use evenkeel::recovery::Position;

/// Settle one record without handling it, so that what waits behind it goes on.
///
/// The record goes to the group's dead-letter topic, marked as skipped, and from there it can be replayed. Skipped is what
/// has not started, or waits for its next attempt; an attempt that runs may still succeed, and if it fails, it was the last.
///
/// A record of a batch that no client can read (readiness names it, and `groups lag` says so) stands for the whole batch: that is
/// skipped without dead letters, as nothing of it is known.
#[derive(Debug, Args)]
pub(super) struct SkipArgs {
    /// The group.
    group: String,

    /// The record.
    #[arg(long, value_name = "TOPIC/PARTITION@OFFSET")]
    record: Position,

    #[command(flatten)]
    order: OrderArgs,
}

impl SkipArgs {
    fn action(&self) -> Action {
        Action::Skip {
            record: self.record.clone(),
        }
    }

    pub(super) fn check(&self) -> Result<(), Usage> {
        self.order.check(self.action())
    }
}

/// Skips.
pub(super) async fn run(connection: &ConnectionArgs, args: SkipArgs) -> anyhow::Result<Ending> {
    let action = args.action();
    order::give(connection, &args.group, args.order, action).await
}
