//! `evenkeel`: publish, read and look after events on Apache Kafka from the command line.

mod args;
mod catalogue;
mod commands;
mod connection;
mod envelope;
mod exit;
mod format;
mod lines;
mod output;
mod pace;
mod progress;
mod receipt;
mod stop;
mod store;
mod time;
mod user;
mod wildcard;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::report(commands::run(args::Args::parse()))
}
