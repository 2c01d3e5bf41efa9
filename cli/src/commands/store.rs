//! `evenkeel store`: the tables that evenkeel keeps in a service's store.

use crate::exit::Ending;
use crate::store::StoreArgs;
use clap::{Args, Subcommand};
use evenkeel::outbox::OutboxStore;

/// Look after the tables that evenkeel keeps in a service's store.
#[derive(Debug, Args)]
pub(crate) struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Migrate(MigrateArgs),
}

/// Create the tables or bring them up to date, so that services need no right to do so.
///
/// Services and relays do the same when they start, one at a time. A store of a newer version is refused.
#[derive(Debug, Args)]
struct MigrateArgs {
    #[command(flatten)]
    store: StoreArgs,

    /// Say what would be done, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub(crate) async fn run(args: StoreCommandArgs) -> anyhow::Result<Ending> {
    match args.command {
        StoreCommand::Migrate(args) => migrate(args).await,
    }
}

async fn migrate(args: MigrateArgs) -> anyhow::Result<Ending> {
    let versions = OutboxStore::versions(&args.store.address).await?;
    let (from, to) = (versions.stored, versions.newest);
    let done = match (from == to, args.dry_run) {
        (true, _) => "is up to date",
        (false, true) => "would be migrated",
        (false, false) => {
            OutboxStore::open(&args.store.address).await?;
            "migrated"
        }
    };
    anstream::println!("outbox  version {from} -> {to}  {done}");
    Ok(Ending::Done)
}
