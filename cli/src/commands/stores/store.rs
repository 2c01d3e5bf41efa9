//! `evenkeel store`: evenkeel's tables in a service's store.
//!
//! The migrations are those that inbox and outbox run themselves. The command exists for services
//! whose database user may not create tables.

use crate::arguments::store_address::HELP;
use crate::output::stderr::say;
use crate::output::{AfterDone, Column, Listing, OutputArgs, Row, name, number, print_line};
use clap::{Args, Subcommand};
use evenkeel::inbox::PostgresInbox;
use evenkeel::outbox::{OutboxStore, PostgresOutbox};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::redacted_address::RedactedAddress;
use serde::Serialize;

/// Manage evenkeel's tables in a service's store.
#[derive(Debug, Args)]
pub(crate) struct StoreCommandArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

/// The commands of `store`.
#[derive(Debug, Subcommand)]
enum StoreCommand {
    Migrate(MigrateArgs),
}

/// Create evenkeel's tables or migrate them to this version; shows the plan until --execute is
/// given.
///
/// For services without the right to change tables. Services and relays with that right migrate at
/// their start, one at a time. A store of a newer version is refused. The inbox in a SQLite file is
/// left to its service. --print writes the SQL for teams with another migration tool. Safe to
/// repeat.
#[derive(Debug, Args)]
struct MigrateArgs {
    #[arg(
        long,
        value_name = "URL",
        env = "EVENKEEL_STORE",
        hide_env_values = true,
        required_unless_present = "print",
        help = HELP
    )]
    store: Option<RedactedAddress>,

    /// Print the SQL for PostgreSQL instead, to be run in one transaction: the migration of
    /// --store, or all of it if no store is given.
    #[arg(long, conflicts_with_all = ["execute", "output"])]
    print: bool,

    /// Migrate the tables. Without this flag, nothing is changed.
    #[arg(long)]
    execute: bool,

    /// Show the plan, as without --execute.
    #[arg(long, hide = true, conflicts_with = "execute")]
    dry_run: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// The tables of one purpose.
#[derive(Serialize)]
struct Tables {
    /// `inbox` or `outbox`.
    tables: &'static str,
    /// Version in the store before the command. 0 without tables.
    version: u64,
    /// Version of this release.
    newest: u64,
    /// Whether they were migrated. False in a dry run.
    done: bool,
}

impl Row for Tables {
    const COLUMNS: &'static [Column] = &[
        name("tables"),
        number("version"),
        number("newest"),
        name("result"),
    ];

    fn cells(&self) -> Vec<Vec<String>> {
        let result = match (self.done, self.version == self.newest) {
            (true, _) => "migrated",
            (false, true) => "up to date",
            (false, false) => "would be migrated",
        };
        vec![vec![
            self.tables.to_owned(),
            self.version.to_string(),
            self.newest.to_string(),
            result.to_owned(),
        ]]
    }
}

/// Runs the command.
pub(crate) async fn run(args: StoreCommandArgs) -> anyhow::Result<Ending> {
    match args.command {
        StoreCommand::Migrate(args) => migrate(args).await,
    }
}

/// Prints the SQL of the migration. Without a store it is the SQL for an empty database.
async fn print(store: Option<&str>) -> anyhow::Result<Ending> {
    let Some(address) = store else {
        print_line(&PostgresInbox::migration_sql())?;
        print_line(&PostgresOutbox::migration_sql(0))?;
        return Ok(Ending::Done);
    };
    let Some(inbox) = PostgresInbox::versions(address).await? else {
        return Err(Usage(
            "--print supports PostgreSQL only; a service migrates its SQLite file when it opens it"
                .to_owned(),
        )
        .into());
    };
    let outbox = OutboxStore::versions(address).await?;
    if inbox.stored != inbox.newest {
        print_line(&PostgresInbox::migration_sql())?;
    }
    if outbox.stored != outbox.newest {
        print_line(&PostgresOutbox::migration_sql(outbox.stored))?;
    }
    if inbox.stored == inbox.newest && outbox.stored == outbox.newest {
        say!("the tables are up to date");
    }
    Ok(Ending::Done)
}

/// Prints the versions of the tables, and migrates them with `--execute`.
async fn migrate(args: MigrateArgs) -> anyhow::Result<Ending> {
    let store = args.store.as_ref().map(RedactedAddress::as_str);
    let address = match (store, args.print) {
        (store, true) => return print(store).await,
        (Some(address), false) => address,
        (None, false) => return Err(Usage("--store is missing".to_owned()).into()),
    };
    let tables = |tables, version, newest| Tables {
        tables,
        version,
        newest,
        done: args.execute && version != newest,
    };
    let versions = OutboxStore::versions(address).await?;
    let outbox = tables("outbox", versions.stored as u64, versions.newest as u64);
    if outbox.done {
        OutboxStore::open(address).await?;
    }
    let mut rows = vec![outbox];
    if let Some(versions) = PostgresInbox::versions(address).await? {
        let inbox = tables("inbox", versions.stored.into(), versions.newest.into());
        if inbox.done {
            PostgresInbox::open(address, "").await?;
        }
        rows.push(inbox);
    }
    let is_old = |row: &Tables| row.version != row.newest && !row.done;
    let to_do = rows.iter().any(is_old);
    let done = if args.execute {
        "the tables are up to date"
    } else {
        "nothing was changed"
    };
    Listing::print(args.output, rows).after_done(|| done.to_owned())?;
    if to_do {
        say!("nothing was changed; migrate the tables with --execute");
    }
    Ok(Ending::Done)
}
