//! The `orderboard` command: the daemon, and what it says of the orders.
//!
//! Without a subcommand it is the daemon, as every other service is; `run` says the same in a word. `show` and `list` read
//! the cache or the store, whether a daemon runs or not.

use super::cache::Cache;
use super::caching::Caching;
use super::view::{self, Line, Order};
use super::{SERVICE, State};
use crate::options::Options;
use crate::{daemon, exit};
use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps what state each order is in, and shows it
#[derive(Debug, Parser)]
#[command(name = "orderboard", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    running: Running,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon (also without a subcommand)
    Run(Running),
    /// Show one order: its state, and every fact that led there
    Show {
        /// The order
        order: String,
        #[command(flatten)]
        reading: Reading,
    },
    /// List the orders and their states
    List {
        /// Only those in this state
        #[arg(long)]
        state: Option<State>,
        #[command(flatten)]
        reading: Reading,
    },
}

#[derive(Debug, Args)]
struct Running {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    shared: Shared,
}

#[derive(Debug, Args)]
struct Shared {
    /// Redis that the instances share what they know in (redis://host:port), so that any of them answers; the store answers when
    /// it is down
    #[arg(
        long = "cache",
        env = "SHOP_CACHE",
        value_name = "URL",
        hide_env_values = true
    )]
    cache: Option<String>,
}

impl Shared {
    fn open(&self) -> Result<Option<Cache>> {
        self.cache.as_deref().map(Cache::new).transpose()
    }
}

#[derive(Debug, Args)]
struct Reading {
    /// SQLite file of the orderboard
    #[arg(
        long,
        env = "SHOP_STORE",
        value_name = "PATH",
        default_value = "orderboard.db"
    )]
    store: PathBuf,
    #[command(flatten)]
    shared: Shared,
    /// How to print
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// How the board prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document per line
    Jsonl,
}

/// The command's `main`.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => run(cli.running).await,
        Some(Command::Run(running)) => run(running).await,
        Some(Command::Show { order, reading }) => show(&order, &reading).await,
        Some(Command::List { state, reading }) => list(state, &reading).await,
    };
    daemon::exit(result)
}

async fn run(running: Running) -> Result<u8> {
    let cache = running.shared.open()?;
    let store = running.options.clone().settings(SERVICE.name)?.store;
    daemon::start_with(&SERVICE, running.options, |router| {
        Caching::new(router, store, cache)
    })
    .await
}

/// The order as the cache has it, or else as the store has it.
async fn find(order_id: &str, reading: &Reading) -> Result<Option<Order>> {
    if let Some(cache) = reading.shared.open()? {
        match cache.order(order_id).await {
            Ok(None) => {}
            Ok(order) => return Ok(order),
            Err(error) => unanswered(&error),
        }
    }
    let mut store = view::open(&reading.store).await?;
    view::order(&mut store, order_id).await
}

/// The orders as the store has them, and where there is none, as the cache does, which may have dropped some.
async fn find_all(state: Option<State>, reading: &Reading) -> Result<Vec<Line>> {
    if let (Some(cache), false) = (reading.shared.open()?, reading.store.exists()) {
        match cache.orders(state).await {
            Ok(lines) => return Ok(lines),
            Err(error) => unanswered(&error),
        }
    }
    let mut store = view::open(&reading.store).await?;
    view::orders(&mut store, state).await
}

fn unanswered(error: &anyhow::Error) {
    eprintln!("the cache does not answer, so the store does: {error:#}");
}

async fn show(order_id: &str, reading: &Reading) -> Result<u8> {
    let Some(order) = find(order_id, reading).await? else {
        anyhow::bail!("no event told of the order {order_id} yet");
    };
    print(match reading.output {
        Output::Table => order_table(&order),
        Output::Json => serde_json::to_string_pretty(&order)?,
        Output::Jsonl => serde_json::to_string(&order)?,
    })
}

async fn list(state: Option<State>, reading: &Reading) -> Result<u8> {
    let lines = find_all(state, reading).await?;
    print(match reading.output {
        Output::Table => list_table(&lines),
        Output::Json => serde_json::to_string_pretty(&lines)?,
        Output::Jsonl => json_lines(&lines)?,
    })
}

fn order_table(order: &Order) -> String {
    let facts = order
        .facts
        .iter()
        .map(|told| [&told.fact, &told.at, &told.detail]);
    let facts = table(["FACT", "AT", "DETAIL"], facts);
    format!("{} is {}\n{facts}", order.order_id, order.state)
}

fn list_table(lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| [&line.order_id, &line.state]);
    table(["ORDER", "STATE"], lines)
}

/// Columns without lines between them, as the operator's tool prints them.
fn table<'a, const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [&'a String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn json_lines<T: Serialize>(items: &[T]) -> Result<String> {
    let lines: Vec<String> = items
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()?;
    Ok(lines.join("\n"))
}

/// Prints `text`, unless it is empty; a reader that has gone away, such as `head`, is no error.
fn print(text: String) -> Result<u8> {
    if text.is_empty() {
        return Ok(exit::OK);
    }
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit::OK),
    }
}
