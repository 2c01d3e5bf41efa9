//! `evenkeel`: publish, read and operate events on Apache Kafka from the command line.
//!
//! This crate owns the arguments, the tables and the exit codes. The operations are in
//! `evenkeel-ops`, connections and records in `evenkeel`, and the exit codes' table in
//! `evenkeel-program`.
//!
//! | module | owns |
//! |---|---|
//! | [`args`], [`arguments`] | the command line, and the arguments that several commands share |
//! | [`commands`] | one file per command: its arguments, its output, its ending |
//! | [`help`] | examples, exit status and environment, for help texts and manual pages |
//! | [`output`] | tables, JSON, progress, and lines on standard error |
//! | [`record_json`] | a record as a JSON object, and back |
//! | [`input_lines`] | lines of standard input or of a file |
//! | [`hints`] | the text of an error, with similar names |

mod arguments;
mod command_line;
mod commands;
mod help;
mod hints;
mod input_lines;
mod output;
mod record_json;

use clap::FromArgMatches;
use evenkeel_program::exit::{self, Ending};
use std::process::ExitCode;

/// Parses the command line, runs the command, and turns its ending or error into the exit code.
/// Help and version go to standard output and are no error.
fn main() -> ExitCode {
    let command = help::command();
    let line = arguments::flags_before_command::move_behind_command(&command, std::env::args_os());
    let parsed = command
        .try_get_matches_from(line)
        .and_then(|matches| command_line::Args::from_arg_matches(&matches));
    match parsed {
        Ok(args) => exit::report(commands::run(args), hints::failure_line),
        Err(error) if error.use_stderr() => error.exit(),
        Err(help) => exit::report(
            output::print_help(&help).map(|()| Ending::Done),
            hints::failure_line,
        ),
    }
}
