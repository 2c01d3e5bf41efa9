//! The top level of the command line. Doc comments are the help text.

use crate::arguments::connection::ConnectionArgs;
use crate::commands::events::{consume, publish, schemas};
#[cfg(feature = "dev")]
use crate::commands::setup::dev;
use crate::commands::setup::{completions, config};
use crate::commands::stores::{outbox, store};
use crate::commands::{audit, dlq, drill, groups, parked, topics};
use clap::{Parser, Subcommand};

/// Publish, read and operate events on Apache Kafka.
///
/// Data goes to standard output, messages go to standard error. Commands that change or delete much
/// show their plan and change nothing, until --execute is given. Listings exit with 3 for a problem
/// only with --check.
///
/// The connection flags (-b, -X, --config, --timeout) may precede or follow the command.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Command {
    /// The connection flags of the command. `None` if it does not use Kafka.
    pub(crate) fn connection(&self) -> Option<&ConnectionArgs> {
        match self {
            Self::Publish(args) => Some(&args.connection),
            Self::Consume(args) => Some(&args.connection),
            Self::Topics(args) => Some(&args.connection),
            Self::Groups(args) => Some(&args.connection),
            Self::Dlq(args) => Some(&args.connection),
            Self::Parked(args) => Some(&args.connection),
            Self::Audit(args) => Some(&args.connection),
            _ => None,
        }
    }
}

/// The commands. Each has a file of its own under `commands`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(visible_alias = "produce")]
    Publish(publish::PublishArgs),
    #[command(visible_alias = "tail")]
    Consume(consume::ConsumeArgs),
    Topics(topics::TopicsArgs),
    Groups(groups::GroupsArgs),
    Dlq(dlq::DlqArgs),
    Parked(parked::ParkedArgs),
    Audit(audit::AuditArgs),
    Drill(drill::DrillArgs),
    Outbox(outbox::OutboxArgs),
    Store(store::StoreCommandArgs),
    Config(config::ConfigArgs),
    Schemas(schemas::SchemasArgs),
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}
