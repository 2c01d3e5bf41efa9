//! The shop's producer commands: `orders` and `stock`.
//!
//! Each command consists of a struct that clap fills and a validated value that is built from it
//! and run. Parsing, identities, progress and simulated content are separate files without a
//! client.
//!
//! | module | owns |
//! |---|---|
//! | [`orders`] | `orders place`, `cancel`, `import`, `simulate` |
//! | [`stock`] | `stock receive`, `fill`, `import` |
//! | [`import`] | reading a file line by line, publishing it in order, resuming it |
//! | [`simulate`] | seeded orders at a steady rate, and the journal of their outcomes |
//! | [`articles`] | the shop's articles |
//! | [`connection`] | the Kafka connection flags, and the check that a broker answers |
//! | [`pipeline`] | events in flight, settled in the order they were sent |
//! | [`output`], [`progress`] | results on standard output, progress on standard error |
//! | [`run`] | runs a command and turns its result into an exit code |
//!
//! Exit codes, signals, durations and broker flags are shared by all programs: `evenkeel_program`.

pub mod articles;
pub mod connection;
pub mod import;
pub mod orders;
pub mod output;
pub mod pipeline;
pub mod progress;
pub mod publish;
pub mod simulate;
pub mod stock;

use evenkeel_program::exit::{self, Ending};
use std::process::ExitCode;

/// Runs a command and turns its result into an exit code. Prints an error with its causes.
pub fn run(command: impl Future<Output = anyhow::Result<Ending>>) -> ExitCode {
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(command));
    exit::report(result, |error| format!("error: {}", exit::message(error)))
}

#[cfg(test)]
mod tests {
    use super::{orders::OrdersArgs, stock::StockArgs};
    use clap::{Command, CommandFactory};

    /// The words of an example, as a shell splits them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match (c, words.last_mut()) {
                ('\'', _) => quoted = !quoted,
                (' ', _) if !quoted => words.push(String::new()),
                (c, Some(word)) => word.push(c),
                (_, None) => {}
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    /// Checks that a program's commands have examples in their help, and that each example parses.
    fn check(program: &Command) {
        for command in program.get_subcommands() {
            let help = command.clone().render_long_help().to_string();
            let examples = help.split("Examples:").nth(1).unwrap_or_default();
            let own = format!("{} ", program.get_name());
            let stages = examples.lines().flat_map(|line| line.split(" | "));
            let lines: Vec<&str> = stages
                .map(str::trim)
                .filter(|line| line.starts_with(&own))
                .collect();
            assert!(
                !lines.is_empty(),
                "{} has no example: {help}",
                command.get_name()
            );
            for line in lines {
                let parsed = program.clone().try_get_matches_from(words(line));
                assert!(parsed.is_ok(), "{line}: {parsed:?}");
            }
        }
    }

    #[test]
    fn every_command_has_examples_that_are_understood() {
        check(&OrdersArgs::command().name("orders"));
        check(&StockArgs::command().name("stock"));
    }
}
