//! `evenkeel parked release` and `drop`: decisions on a waiting key.
//!
//! Both are commands to the running group, like those of `evenkeel groups`. The member that owns
//! the key answers, and the group's history keeps the command.

use super::group_args::GroupArgs;
use crate::arguments::connection::ConnectionArgs;
use crate::commands::groups::control::{CommandArgs, ControlCommand};
use clap::Args;
use evenkeel::control::{Action, Scope};
use evenkeel_program::exit::{Ending, Usage};

/// Retry the first parked record of a key at once, even if the key is held.
///
/// The attempt counts like any other. A key that is held for a dead letter continues without it:
/// its later records are handled before the dead letter is replayed.
///
/// Exit codes: 0 answered; 1 refused, or no record of the key waits; 5 the owner did not answer in
/// time, and the command stays in force.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    command: CommandArgs,
}

/// Dead-letter the first parked record of a key without handling it, so that the records behind it
/// continue.
///
/// The record is written to the group's dead-letter topic with the stage skipped, and can be
/// replayed. An attempt that is running may still succeed.
///
/// Exit codes: 0 answered; 1 refused, or no record of the key waits; 5 the owner did not answer in
/// time, and the command stays in force.
#[derive(Debug, Args)]
pub(crate) struct DropArgs {
    #[command(flatten)]
    key: KeyArgs,

    #[command(flatten)]
    command: CommandArgs,
}

/// One key of the group.
#[derive(Debug, Args)]
struct KeyArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// The key.
    #[arg(long)]
    key: String,
}

impl KeyArgs {
    /// The scope of the key in a topic.
    fn scope(&self, topic: &str) -> Scope {
        Scope::Key {
            topic: topic.to_owned(),
            key: self.key.as_bytes().to_vec(),
        }
    }

    /// The command for this key's group.
    fn command<'a>(&'a self, flags: &'a CommandArgs, action: Action) -> ControlCommand<'a> {
        ControlCommand {
            group: self.group.group.name(),
            flags,
            action,
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
    /// The command, once the topic is known.
    fn command(&self, scope: Scope) -> ControlCommand<'_> {
        self.key.command(&self.command, Action::RetryNow { scope })
    }

    /// Rejects meaningless arguments. The topic may be known only to the cluster, so it is not
    /// checked.
    pub(super) fn check(&self) -> Result<(), Usage> {
        self.command(self.key.scope("any")).check()
    }
}

impl DropArgs {
    /// The command, once the topic is known.
    fn command(&self, scope: Scope) -> ControlCommand<'_> {
        self.key.command(&self.command, Action::Drop { scope })
    }

    /// Rejects meaningless arguments, as for a release.
    pub(super) fn check(&self) -> Result<(), Usage> {
        self.command(self.key.scope("any")).check()
    }
}

/// Releases the key.
pub(super) async fn run(connection: &ConnectionArgs, args: ReleaseArgs) -> anyhow::Result<Ending> {
    let scope = args.key.find(connection).await?;
    args.command(scope).give(connection).await
}

/// Dead-letters the first parked record of the key.
pub(super) async fn run_drop(
    connection: &ConnectionArgs,
    args: DropArgs,
) -> anyhow::Result<Ending> {
    let scope = args.key.find(connection).await?;
    args.command(scope).give(connection).await
}
