//! The command line, with examples, exit status and environment in its help.

use super::examples::{EXAMPLES, lines_of};
use crate::command_line::Args;
use clap::{Command, CommandFactory};
use evenkeel_program::exit::STATUS;
use std::fmt::Write as _;

/// The command line with its complete help: clap's, then examples, exit status and environment.
///
/// Parsing, completions and manual pages all start from this one.
pub(crate) fn command() -> Command {
    let mut command = Args::command();
    command = command.after_long_help(format!(
        "{}\n\n{}",
        exit_status(),
        crate::arguments::connection::ENVIRONMENT
    ));
    for (path, _) in EXAMPLES.iter().filter(|(path, _)| !path.is_empty()) {
        let words: Vec<&str> = path.split(' ').collect();
        let text = examples(path);
        command = at(command, &words, |command| command.after_help(text));
    }
    command
}

/// Changes the subcommand at that path. Panics, as clap does, if there is none: the tests cover
/// every path.
fn at(command: Command, path: &[&str], change: impl FnOnce(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [name, rest @ ..] => command.mut_subcommand(name, |inner| at(inner, rest, change)),
    }
}

/// The examples of a command, as a block of help.
fn examples(path: &str) -> String {
    let lines = lines_of(path).iter().map(|line| format!("\n  {line}"));
    format!("Examples:{}", lines.collect::<String>())
}

/// The tool's own examples, and the table of exit codes.
fn exit_status() -> String {
    let mut text = format!("{}\n\nExit status:", examples(""));
    for (code, meaning) in STATUS {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {code:<4} {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::manual_page::page;
    use super::*;
    use clap::FromArgMatches;

    /// The words of an example up to its first pipe or redirection, as a shell splits them.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                '|' | '>' if !quoted => break,
                ' ' if !quoted => words.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        words.push(word);
        words.retain(|word| !word.is_empty());
        words
    }

    /// All commands without subcommands, by path.
    fn leaves(command: &Command, path: &str, found: &mut Vec<String>) {
        for inner in command.get_subcommands() {
            let path = format!("{path} {}", inner.get_name()).trim().to_owned();
            match inner.has_subcommands() {
                true => leaves(inner, &path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let mut command = command();
        command.build();
        let mut paths = Vec::new();
        leaves(&command, "", &mut paths);
        for path in paths {
            assert!(!lines_of(&path).is_empty(), "{path} has no example");
            let words: Vec<&str> = path.split(' ').collect();
            let leaf = words.iter().fold(&command, |command, name| {
                command.find_subcommand(name).expect("it is there")
            });
            let help = leaf.clone().render_help().to_string();
            assert!(help.contains(lines_of(&path)[0]), "{path}: {help}");
        }
    }

    #[test]
    fn every_example_is_understood() {
        for (path, lines) in EXAMPLES.iter().copied() {
            for line in lines {
                let stages = line
                    .split(" | ")
                    .filter(|stage| stage.starts_with("evenkeel "));
                for stage in stages {
                    let matches = command().try_get_matches_from(words(stage));
                    let args = matches.and_then(|found| Args::from_arg_matches(&found));
                    if let Err(error) = args {
                        panic!("{path}: {stage}: {error}");
                    }
                }
                let first = words(line).join(" ");
                let is_own = first.starts_with(&format!("evenkeel {path}"))
                    || line.contains(&format!("| evenkeel {path}"));
                assert!(is_own, "{line} is no example of {path}");
            }
        }
    }

    #[test]
    fn a_manual_page_tells_exit_codes_variables_and_examples() {
        let mut command = command();
        command.build();
        let lag = command
            .find_subcommand("groups")
            .and_then(|groups| groups.find_subcommand("lag"));
        let page = page(lag.expect("it is there"), "groups lag").unwrap();
        let page = String::from_utf8(page).unwrap();
        for text in [
            ".SH \"EXIT STATUS\"",
            ".SH ENVIRONMENT",
            ".SH EXAMPLES",
            "EVENKEEL_CONFIG",
            "KAFKA_BOOTSTRAP_SERVERS",
            "max",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn the_documentation_has_the_same_codes() {
        let text = include_str!("../../../docs/src/reference/tool.md");
        let section = text.split("## Exit codes").nth(1).expect("its section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let cells = section.lines().filter_map(|line| line.split('|').nth(1));
        let documented: Vec<&str> = cells
            .flat_map(|cell| cell.split(','))
            .map(str::trim)
            .filter(|code| code.parse::<u8>().is_ok())
            .collect();
        let codes: Vec<&str> = STATUS.iter().map(|(code, _)| *code).collect();
        assert_eq!(documented, codes);
    }

    #[test]
    fn o_is_the_output_in_every_command() {
        fn check(command: &Command) {
            for argument in command.get_arguments() {
                if argument.get_short() == Some('o') {
                    assert_eq!(
                        argument.get_long(),
                        Some("output"),
                        "{}",
                        command.get_name()
                    );
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&command());
    }
}
