//! The `orderboard` command: the daemon, and queries of orders.
//!
//! Without a subcommand it runs the daemon, like every other service; `run` is the explicit form.
//! `show` and `list` read the cache or the store, whether a daemon runs or not.

use super::api::{self, OrderQueries};
use super::cache::Cache;
use super::cache_updater::CacheUpdater;
use super::queries::{self, Line, Order};
use super::{SERVICE, State};
use crate::daemon;
use crate::daemon::layer::Layered;
use crate::daemon::options::Options;
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use comfy_table::{Table, presets};
use evenkeel::telemetry::daemon::admin_address;
use evenkeel::telemetry::{say, visible};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;
use evenkeel_program::redacted_address::RedactedAddress;
use evenkeel_program::stdout::print_json_line;
use serde::Serialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps the state of each order, and shows it
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
    /// Show one order: its state, and the facts that led to it. Exit code 1 if it is unknown
    Show {
        /// Id of the order
        order: String,
        #[command(flatten)]
        reading: Reading,
    },
    /// List the orders and their states
    List {
        /// Only orders in this state
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
    /// Address of GET /orders/ID, which the gateway asks: a port alone is on 127.0.0.1; 0.0.0.0:PORT
    /// is reachable from other machines [default: no server]
    #[arg(long, env = "SHOP_API", value_name = "[ADDR:]PORT", value_parser = admin_address)]
    api: Option<SocketAddr>,
}

#[derive(Debug, Args)]
struct Shared {
    /// Redis in which the instances share their orders (redis://HOST:PORT), so that a query does
    /// not depend on one instance's store. The store answers when Redis is down [default: none]
    #[arg(
        long = "cache",
        env = "SHOP_CACHE",
        value_name = "URL",
        hide_env_values = true
    )]
    cache: Option<RedactedAddress>,
}

impl Shared {
    fn open(&self) -> Result<Option<Cache>> {
        self.cache
            .as_ref()
            .map(|cache| Cache::new(cache.as_str()))
            .transpose()
    }
}

#[derive(Debug, Args)]
struct Reading {
    /// SQLite file of the orderboard, as given to its daemon
    #[arg(
        long,
        env = "SHOP_STORE",
        value_name = "PATH",
        default_value = "orderboard.db"
    )]
    store: PathBuf,
    #[command(flatten)]
    shared: Shared,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Table)]
    output: OutputFormat,
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

async fn run(running: Running) -> Result<Ending> {
    let cache = running.shared.open()?;
    let store = running.options.clone().settings(SERVICE.name)?.store;
    if let Some(address) = running.api {
        api::start(address, OrderQueries::new(store.clone(), cache.clone())).await?;
    }
    daemon::start_with(&SERVICE, running.options, |router| {
        Layered(CacheUpdater::new(router, store, cache))
    })
    .await
}

/// Reads the order from the cache, else from the store.
async fn find(order_id: &str, reading: &Reading) -> Result<Option<Order>> {
    if let Some(cache) = reading.shared.open()? {
        match cache.order(order_id).await {
            Ok(None) => {}
            Ok(order) => return Ok(order),
            Err(error) => unanswered(&error),
        }
    }
    let mut store = queries::open(&reading.store).await?;
    queries::order(&mut store, order_id).await
}

/// Reads the orders from the store. Without a store, from the cache, which may have evicted some.
async fn find_all(state: Option<State>, reading: &Reading) -> Result<Vec<Line>> {
    if let (Some(cache), false) = (reading.shared.open()?, reading.store.exists()) {
        match cache.orders(state).await {
            Ok(lines) => return Ok(lines),
            Err(error) => unanswered(&error),
        }
    }
    let mut store = queries::open(&reading.store).await?;
    queries::orders(&mut store, state).await
}

fn unanswered(error: &anyhow::Error) {
    say(&format!(
        "the cache does not answer; reading the store: {error:#}"
    ));
}

async fn show(order_id: &str, reading: &Reading) -> Result<Ending> {
    let Some(order) = find(order_id, reading).await? else {
        anyhow::bail!("the order {order_id} is unknown: no event about it was handled yet");
    };
    print(&match reading.output {
        OutputFormat::Table => order_table(&order),
        OutputFormat::Json => serde_json::to_string_pretty(&order)?,
        OutputFormat::Jsonl => serde_json::to_string(&order)?,
    })
}

async fn list(state: Option<State>, reading: &Reading) -> Result<Ending> {
    let lines = find_all(state, reading).await?;
    print(&match reading.output {
        OutputFormat::Table => list_table(&lines),
        OutputFormat::Json => serde_json::to_string_pretty(&lines)?,
        OutputFormat::Jsonl => json_lines(&lines)?,
    })
}

fn order_table(order: &Order) -> String {
    let facts = order
        .facts
        .iter()
        .map(|told| [&told.fact, &told.at, &told.detail]);
    let facts = table(["FACT", "AT", "DETAIL"], facts);
    let order_id = visible(&order.order_id);
    format!("{order_id} is {}\n{facts}", order.state)
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
        // Text of events must neither control the terminal nor look like rows.
        table.add_row(row.map(|cell| visible(cell).into_owned()));
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

/// Prints `text`, unless it is empty. Cells are already escaped. In JSON on a terminal, control
/// characters are written as escapes.
fn print(text: &str) -> Result<Ending> {
    if !text.is_empty() {
        print_json_line(text)?;
    }
    Ok(Ending::Done)
}

#[cfg(test)]
mod tests {
    use super::super::queries::Told;
    use super::*;

    #[test]
    fn event_texts_cannot_control_the_terminal_or_forge_rows() {
        let evil = "no\u{1b}]0;x\u{7}\u{9b}2J\u{202e}\no-2  shipped";
        let told = Told {
            fact: "cancelled".to_owned(),
            at: "2026-05-01T12:00:00Z".to_owned(),
            detail: evil.to_owned(),
        };
        let order = Order {
            order_id: evil.to_owned(),
            state: "cancelled".to_owned(),
            facts: vec![told],
        };
        let line = Line {
            order_id: evil.to_owned(),
            state: "cancelled".to_owned(),
        };
        for (text, lines) in [(order_table(&order), 3), (list_table(&[line]), 2)] {
            let is_steering = |c| evenkeel::telemetry::is_unsafe(c) && c != '\n';
            assert!(!text.contains(is_steering), "{text:?}");
            assert_eq!(text.lines().count(), lines, "{text}");
        }
    }
}
