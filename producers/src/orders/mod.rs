//! `orders`: places, cancels, imports and simulates orders.

mod cancel;
mod event_source;
pub mod line;
mod place;
mod receipt;
pub mod row;

pub use event_source::SOURCE;

use crate::connection::ConnectionArgs;
use crate::import::{self, ImportArgs, import};
use crate::simulate::{SimulateArgs, simulate};
use clap::{Parser, Subcommand};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;

/// Places, cancels, imports and simulates orders of the shop.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct OrdersArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Format of receipts and summaries on standard output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: OutputFormat,
}

/// The end of every help text.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0         Every event was acknowledged
  1         Some or all events failed
  2         Wrong usage
  4         No broker can be reached
  5         It is unknown whether the brokers have some event
  130, 143  Stopped by SIGINT, SIGTERM";

#[derive(Debug, Subcommand)]
enum Command {
    /// Place an order
    #[command(after_help = place::EXAMPLES)]
    Place(place::PlaceArgs),
    /// Cancel an order
    #[command(after_help = cancel::EXAMPLES)]
    Cancel(cancel::CancelArgs),
    /// Place the orders of a file, CSV or JSON lines
    #[command(after_long_help = [IMPORT_LINES, import::PROMISES, IMPORT_EXAMPLES].concat())]
    Import(ImportArgs),
    /// Place and cancel random orders at a steady rate
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(SimulateArgs),
}

const IMPORT_LINES: &str = "\
One line is one order. A CSV begins with a header that names order_id, customer_id and lines, and
optionally total_cents and placed_at (RFC 3339), in any order. The lines of an order are one column,
ARTICLE:QUANTITY:PRICE_CENTS separated by spaces:

  order_id,customer_id,lines,placed_at
  o-1001,c-0001,article-001:2:870 article-007:1:3090,2026-11-21T08:00:00Z

The same order as a JSON line, without the time:

  {\"order_id\":\"o-1001\",\"customer_id\":\"c-0001\",\"lines\":\"article-001:2:870 article-007:1:3090\"}

In JSON, lines may also be a list of objects with article, quantity and price_cents. Two equal lines
are one order; order_id distinguishes two orders.

";

const IMPORT_EXAMPLES: &str = "\
Examples:
  orders import orders.csv
  orders import --on-error stop orders.jsonl
  zcat orders.csv.gz | orders import --format csv --quiet --output json";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  orders simulate --rate 200 --for 60s --seed 7
  orders simulate --rate 1000 --for 5m --cancel-share 0.1 --journal journal.jsonl --output json";

impl OrdersArgs {
    /// Validates the arguments and runs the command.
    pub async fn run(self) -> anyhow::Result<Ending> {
        let connection = self.connection.build()?;
        match self.command {
            Command::Place(args) => place::place(args.build()?, &connection, self.output).await,
            Command::Cancel(args) => cancel::cancel(args.build(), &connection, self.output).await,
            Command::Import(args) => {
                import::<row::OrderRow>(args.build()?, &connection, SOURCE, self.output).await
            }
            Command::Simulate(args) => {
                simulate(args.build()?, &connection, SOURCE, self.output).await
            }
        }
    }
}
