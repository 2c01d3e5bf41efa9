//! `evenkeel parked release` and `drop`: decisions on a waiting key.
//!
//! Both are commands to the running group, like those of `evenkeel groups`. The member that owns
//! the key answers, and the group's history keeps the command.

use super::group_args::GroupArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::commands::groups::control::{CommandArgs, give};
use clap::Args;
use evenkeel::control::{Action, Scope};
use evenkeel_program::exit::{Ending, Usage};

/// Let a key go on at once, also one that is held.
///
/// Its first parked record is tried now, and counts the attempt. A key that is held for a dead
/// letter goes on without it: what comes after the dead letter is handled before that is replayed.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    command: CommandArgs,
}

/// Give the first parked record of a key up, and let what is behind it go on.
///
/// The record goes to the group's dead-letter topic, marked as skipped, and from there it can be
/// replayed. An attempt that runs may still succeed.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    command: CommandArgs,
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

    /// Finds the key in the named topic, or in the group's only topic.
    async fn find(&self, connection: &ConnectionArgs) -> anyhow::Result<Scope> {
        let topics = self.group.sources(connection).await?;
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
        self.command.check(Action::RetryNow { scope })
    }
}

impl DropArgs {
    pub(super) fn check(&self) -> Result<(), Usage> {
        let scope = self.key.scope("any");
        self.command.check(Action::Drop { scope })
    }
}

/// Releases the key.
pub(super) async fn run(connection: &ConnectionArgs, args: ReleaseArgs) -> anyhow::Result<Ending> {
    let action = Action::RetryNow {
        scope: args.key.find(connection).await?,
    };
    give(
        connection,
        args.key.group.group.name(),
        args.command,
        action,
    )
    .await
}

/// Skips its first record.
pub(super) async fn run_drop(
    connection: &ConnectionArgs,
    args: DropArgs,
) -> anyhow::Result<Ending> {
    let action = Action::Drop {
        scope: args.key.find(connection).await?,
    };
    give(
        connection,
        args.key.group.group.name(),
        args.command,
        action,
    )
    .await
}
