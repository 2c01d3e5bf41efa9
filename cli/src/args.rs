//! The top level of the command line. Doc comments are the help text.

use crate::commands::{
    audit, completions, consume, dev, dlq, drill, groups, outbox, parked, publish, schemas, store,
    topics,
};
use clap::{Parser, Subcommand};

/// Publish, read and look after events on Apache Kafka.
///
/// Data goes to standard output, everything else to standard error.
///
/// Exit codes: 0 done; 1 failed, for some records or all; 2 wrong usage; 3 looked and found something bad (lag over the
/// threshold, an invalid schema, an event without its effect, a handler that is not idempotent); 4 cannot reach the cluster; 5 no answer in time; 130 and 143
/// stopped by a signal.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
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
    Schemas(schemas::SchemasArgs),
    Dev(dev::DevArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}
