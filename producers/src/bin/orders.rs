//! `orders`: places, cancels, imports and simulates orders.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    shop_producers::run(shop_producers::orders::OrdersArgs::parse().run())
}
