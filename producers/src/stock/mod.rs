//! `stock`: receives deliveries into the warehouse.

mod event_source;
mod fill;
mod receipt;
mod receive;
pub mod row;

pub use event_source::SOURCE;

use crate::connection::ConnectionArgs;
use crate::import::{self, ImportArgs, import};
use crate::orders::EXIT_CODES;
use clap::{Parser, Subcommand};
use evenkeel_program::exit::Ending;
use evenkeel_program::output_format::OutputFormat;

/// Receives deliveries into the shop's warehouse.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct StockArgs {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Format of receipts and summaries on standard output
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive a quantity of one article
    #[command(after_help = receive::EXAMPLES)]
    Receive(receive::ReceiveArgs),
    /// Receive the same quantity of every article of the shop
    #[command(after_help = fill::EXAMPLES)]
    Fill(fill::FillArgs),
    /// Receive the deliveries of a file, CSV or JSON lines
    #[command(after_long_help = [IMPORT_LINES, import::PROMISES, IMPORT_EXAMPLES].concat())]
    Import(ImportArgs),
}

const IMPORT_LINES: &str = "\
One line is one delivery of one article. A CSV begins with a header that names the columns, in any
order:

  article,quantity,delivery_id
  article-001,100,d-2026-0001

The same delivery as a JSON line:

  {\"article\":\"article-001\",\"quantity\":100,\"delivery_id\":\"d-2026-0001\"}

Two equal lines are one delivery; delivery_id distinguishes two deliveries.

";

const IMPORT_EXAMPLES: &str = "\
Examples:
  stock import deliveries.csv
  generate-deliveries | stock import --format jsonl --quiet --output json";

impl StockArgs {
    /// Validates the arguments and runs the command.
    pub async fn run(self) -> anyhow::Result<Ending> {
        let connection = self.connection.build()?;
        match self.command {
            Command::Receive(args) => {
                receive::receive(args.build(), &connection, self.output).await
            }
            Command::Fill(args) => fill::fill(args.build(), &connection, self.output).await,
            Command::Import(args) => {
                import::<row::DeliveryRow>(args.build()?, &connection, SOURCE, self.output).await
            }
        }
    }
}
