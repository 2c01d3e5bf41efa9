//! `evenkeel`: publish, read and look after events on Apache Kafka from the command line.

mod args;
mod arguments;
mod commands;
mod help;
mod hints;
mod lines;
mod output;
mod record_json;

use clap::FromArgMatches;
use evenkeel_program::exit::{self, Ending};
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = help::command();
    let line = arguments::global_flags::behind_command(&command, std::env::args_os());
    let parsed = command
        .try_get_matches_from(line)
        .and_then(|matches| args::Args::from_arg_matches(&matches));
    match parsed {
        Ok(args) => exit::report(commands::run(args), hints::described),
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => exit::report(
            output::print_help(&help).map(|()| Ending::Done),
            hints::described,
        ),
    }
}
