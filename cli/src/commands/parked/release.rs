//! `evenkeel parked release` and `drop`: what to do about a key that waits.
//!
//! Commands to the running group, as those of `evenkeel groups` are: answered by the member that owns the key, and kept in
//! the group's history.

use super::{GroupArgs, sources};
use crate::commands::groups::order::{self, OrderArgs};
use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use clap::Args;
use evenkeel::control::{Action, Scope};

/// Let a key go on at once, also one that is held.
///
/// Its first parked record is tried now, and counts the attempt. A key that is held for a dead letter goes on without it:
/// what comes after the dead letter is handled before that is replayed.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Give the first parked record of a key up, and let what is behind it go on.
///
/// The record goes to the group's dead-letter topic, marked as skipped, and from there it can be replayed. An attempt that
/// runs may still succeed.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    order: OrderArgs,
}

/// Which key is meant.
#[derive(Debug, Args)]
struct KeyArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// The key.
    #[arg(long)]
    key: String,
}

impl KeyArgs {
    fn scope(&self, topic: &str) -> Scope {
        Scope::Key {
            topic: topic.to_owned(),
            key: self.key.as_bytes().to_vec(),
        }
    }

    /// The key in the one topic that is named, or that the group has.
    async fn find(&self, connection: &ConnectionArgs) -> anyhow::Result<Scope> {
        let topics = sources(
            &connection.admin().await?,
            &self.group.group,
            &self.group.topics,
        )
        .await?;
        match topics.as_slice() {
            [topic] => Ok(self.scope(topic)),
            topics => anyhow::bail!(
                "name the topic of the key with --topic: {}",
                topics.join(", ")
            ),
        }
    }
}

impl ReleaseArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = self.key.scope("any");
        self.order.check(Action::RetryNow { scope })
    }
}

impl DropArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = self.key.scope("any");
        self.order.check(Action::Drop { scope })
    }
}

/// Releases the key.
pub(super) async fn run(connection: &ConnectionArgs, args: ReleaseArgs) -> anyhow::Result<Ending> {
    let action = Action::RetryNow {
        scope: args.key.find(connection).await?,
    };
    order::give(connection, &args.key.group.group, args.order, action).await
}

/// Gives its first record up.
pub(super) async fn run_drop(
    connection: &ConnectionArgs,
    args: DropArgs,
) -> anyhow::Result<Ending> {
    let action = Action::Drop {
        scope: args.key.find(connection).await?,
    };
    order::give(connection, &args.key.group.group, args.order, action).await
}
