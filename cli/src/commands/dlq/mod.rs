//! `evenkeel dlq`: lists, shows, exports, replays and purges dead letters.
//!
//! Reading and writing dead letters is in `evenkeel_ops::dead_letters`. These files own the
//! arguments, the tables and the exit codes.
//!
//! - [`select`]: topics and filters, which `list`, `export` and `replay` share
//! - [`list`], [`show`], [`export`]: read only; [`replay`], [`purge`]: change something with
//!   `--execute`
//!
//! Each command watches the signal itself: `replay` records what was acknowledged before it ends,
//! and `purge` ends between two topics.

mod export;
mod list;
mod purge;
mod replay;
mod select;
mod show;

use crate::arguments::connection::ConnectionArgs;
use clap::{Args, Subcommand};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;

/// List, show, export, replay and purge dead letters.
///
/// Reads the dead letters of evenkeel's consumers, Kafka's share groups, Kafka Streams, Kafka
/// Connect, Spring Kafka, Spring Cloud Stream, SmallRye, Karafka, Watermill and Laravel. Topics
/// whose names do not begin with dlq. must be named.
///
/// list, show and export change nothing. replay and purge change nothing without --execute.
#[derive(Debug, Args)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    command: DlqCommand,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The commands of `dlq`.
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
    /// Whether the command changes the cluster. Then the cluster is announced first.
    fn changes(&self) -> bool {
        match self {
            Self::List(_) | Self::Show(_) | Self::Export(_) => false,
            Self::Replay(args) => args.execute,
            Self::Purge(args) => args.execute,
        }
    }

    /// Rejects meaningless arguments before any request to the cluster.
    fn check(&self) -> Result<(), Usage> {
        match self {
            Self::List(_) | Self::Export(_) => Ok(()),
            Self::Show(args) => args.position().map(drop),
            Self::Replay(args) => args.check(),
            Self::Purge(args) => args.check(),
        }
    }
}

/// Runs one of the commands. Wrong arguments are reported before any connection.
pub(crate) async fn run(args: DlqArgs, stop: Stop) -> anyhow::Result<Ending> {
    args.command.check()?;
    let connection = args.connection;
    // Connecting also reports unreachable brokers.
    let admin = match args.command.changes() {
        true => connection.admin_to_change().await?,
        false => connection.admin().await?,
    };
    let cluster = connection.cluster()?;
    match args.command {
        DlqCommand::List(args) => list::run(args, cluster, &admin, stop).await,
        DlqCommand::Show(args) => show::run(args, cluster, &admin, stop).await,
        DlqCommand::Export(args) => export::run(args, cluster, &admin, stop).await,
        DlqCommand::Replay(args) => replay::run(args, &connection, cluster, &admin, stop).await,
        DlqCommand::Purge(args) => purge::run(args, cluster, &admin, stop).await,
    }
}
