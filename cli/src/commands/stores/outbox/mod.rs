//! `evenkeel outbox`: publishes committed events, and shows the state of the outbox.
//!
//! - [`relay`]: a daemon, which handles signals itself because a stop drains
//! - [`status`]: one read of the store
//!
//! The outbox is in the service's own store, so these commands need the store's address, and
//! `relay` also a connection to Kafka.

mod relay;
mod status;

use clap::{Args, Subcommand};
use evenkeel_program::exit::Ending;
use evenkeel_program::stop::Stop;

/// Publish the events of a service's outbox to Kafka, or show its state.
///
/// An outbox is a table in the service's own store. Events are written to it in the transactions
/// that make them true, and a relay publishes them.
#[derive(Debug, Args)]
pub(crate) struct OutboxArgs {
    #[command(subcommand)]
    command: OutboxCommand,
}

/// The commands of `outbox`.
#[derive(Debug, Subcommand)]
enum OutboxCommand {
    Relay(relay::RelayArgs),
    Status(status::StatusArgs),
}

impl OutboxArgs {
    /// The default log filter: a daemon's warnings must be visible.
    pub(crate) fn log_default(&self) -> &'static str {
        match self.command {
            OutboxCommand::Relay(_) => "info",
            OutboxCommand::Status(_) => "off",
        }
    }
}

/// Runs one of the commands.
pub(crate) async fn run(args: OutboxArgs, stop: Stop) -> anyhow::Result<Ending> {
    match args.command {
        OutboxCommand::Relay(args) => relay::run(args).await,
        OutboxCommand::Status(args) => tokio::select! {
            ending = status::run(args) => ending,
            signal = stop.signalled() => Ok(Ending::Stopped(signal)),
        },
    }
}
