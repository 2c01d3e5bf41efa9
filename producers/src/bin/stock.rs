//! `stock`: receives deliveries into the warehouse.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    shop_producers::run(shop_producers::stock::StockArgs::parse().run())
}
