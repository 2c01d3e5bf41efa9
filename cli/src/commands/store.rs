//! `evenkeel store`: the tables that evenkeel keeps in a service's store.

use crate::exit::Ending;
use crate::store::StoreArgs;
use clap::{Args, Subcommand};
use evenkeel::inbox::PostgresInbox;
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
/// Services and relays do the same when they start, one at a time. A store of a newer version is refused. The inbox in a SQLite
/// file belongs to one service, and is left to it.
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
    let address = &args.store.address;
    let outbox = OutboxStore::versions(address).await?;
    let done = done(outbox.stored == outbox.newest, &args, async {
        OutboxStore::open(address).await.map(drop)
    });
    let done = done.await?;
    let (from, to) = (outbox.stored, outbox.newest);
    anstream::println!("outbox  version {from} -> {to}  {done}");
    if let Some(inbox) = PostgresInbox::versions(address).await? {
        let done = self::done(inbox.stored == inbox.newest, &args, async {
            PostgresInbox::open(address, "").await.map(drop)
        });
        let done = done.await?;
        let (from, to) = (inbox.stored, inbox.newest);
        anstream::println!("inbox   version {from} -> {to}  {done}");
    }
    Ok(Ending::Done)
}

/// Migrates unless there is no need or no order to; says what became of it.
async fn done<E>(
    is_newest: bool,
    args: &MigrateArgs,
    migrate: impl Future<Output = Result<(), E>>,
) -> Result<&'static str, E> {
    match (is_newest, args.dry_run) {
        (true, _) => Ok("is up to date"),
        (false, true) => Ok("would be migrated"),
        (false, false) => migrate.await.map(|()| "migrated"),
    }
}
