//! `evenkeel dlq`: what services gave up: list it, look at it, replay it, take it away.

mod export;
pub(super) mod letters;
mod list;
mod marks;
mod originals;
mod purge;
mod replay;
mod select;
mod show;

use crate::connection::ConnectionArgs;
use crate::exit::{Ending, Usage};
use crate::stop::Stop;
use clap::{Args, Subcommand};
use evenkeel::kafka::KafkaConfig;
use std::time::Duration;

/// List, show, export, replay and purge dead letters.
///
/// Reads what evenkeel's consumers, Kafka's share groups, Kafka Streams, Kafka Connect and Spring Kafka write to their
/// dead-letter topics. Topics whose names do not begin with dlq. have to be named.
#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    Show(show::ShowArgs),
    Export(export::ExportArgs),
    Replay(replay::ReplayArgs),
    Purge(purge::PurgeArgs),
}

impl DlqCommand {
    /// Refuses what means nothing, before anything is asked of the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_) | Self::Export(_) => Ok(()),
            Self::Show(args) => args.position().map(drop),
            Self::Replay(args) => args.check(),
            Self::Purge(args) => args.check(),
        }
    }
}

/// How the commands reach the cluster.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) kafka: KafkaConfig,
    pub(super) timeout: Duration,
}

/// Runs one of the commands.
pub(crate) async fn run(args: DlqArgs, stop: Stop) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    // Also the moment at which unreachable brokers are named.
    let admin = connection.admin().await?;
    let cluster = Cluster {
        kafka: connection.kafka()?,
        timeout: connection.timeout(),
    };
    match args.command {
        DlqCommand::List(args) => list::run(args, cluster, &admin, stop).await,
        DlqCommand::Show(args) => show::run(args, cluster, &admin, stop).await,
        DlqCommand::Export(args) => export::run(args, cluster, &admin, stop).await,
        DlqCommand::Replay(args) => replay::run(args, cluster, &admin, stop).await,
        DlqCommand::Purge(args) => purge::run(args, cluster, &admin, stop).await,
    }
}
