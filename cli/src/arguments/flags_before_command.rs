//! Connection flags before the command: `evenkeel -b HOST topics list` equals `evenkeel topics list
//! -b HOST`.
//!
//! The flags are moved after the command before parsing, instead of being declared in both places:
//! for a repeatable flag, clap would silently drop the values in the first place. A flag that is
//! unknown here stays where it is, and clap reports it.

use clap::Command;
use std::ffi::OsString;

/// The short flags of `ConnectionArgs`. All take a value, attached or as the next argument.
const SHORT: &[&str] = &["-b", "-X"];
/// The long flags of `ConnectionArgs`. All take a value, after `=` or as the next argument.
const LONG: &[&str] = &["--brokers", "--bootstrap-server", "--config", "--timeout"];

/// Moves flags that precede or separate the names of the command after these names. Arguments
/// behind the innermost command keep their places. If the line names no command, the flags are
/// dropped, and clap reports the missing command.
pub(crate) fn move_behind_command(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let mut rest = arguments.into_iter();
    let mut line: Vec<OsString> = rest.by_ref().take(1).collect();
    let mut flags = Vec::new();
    let mut innermost = command;
    while innermost.has_subcommands() {
        let Some(argument) = rest.next() else { break };
        let text = argument.to_str().unwrap_or_default();
        if SHORT.contains(&text) || LONG.contains(&text) {
            flags.push(argument);
            flags.extend(rest.next());
        } else if has_value(text) {
            flags.push(argument);
        } else {
            let found = innermost.find_subcommand(text);
            line.push(argument);
            match found {
                Some(found) => innermost = found,
                None => break,
            }
        }
    }
    if line.len() > 1 {
        line.append(&mut flags);
    }
    line.extend(rest);
    line
}

/// Whether the argument is a connection flag that contains its value: `-bHOST`, `--brokers=HOST`.
fn has_value(argument: &str) -> bool {
    let long = argument.split_once('=').map(|(name, _)| name);
    SHORT.iter().any(|name| argument.starts_with(name))
        || long.is_some_and(|name| LONG.contains(&name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(line: &str, expected: &str) {
        let command = crate::command_line::Args::command();
        let arguments = line.split(' ').map(OsString::from);
        let moved = move_behind_command(&command, arguments);
        let expected: Vec<OsString> = expected.split(' ').map(OsString::from).collect();
        assert_eq!(moved, expected, "{line}");
    }

    #[test]
    fn connection_flags_are_moved_behind_the_command() {
        check("ek topics list -b a", "ek topics list -b a");
        check("ek -b a topics list", "ek topics list -b a");
        check(
            "ek -ba -X c=d topics -X e=f ls -X g=h",
            "ek topics ls -ba -X c=d -X e=f -X g=h",
        );
        check(
            "ek --brokers=a --timeout 1s tail t -o -1",
            "ek tail --brokers=a --timeout 1s t -o -1",
        );
        check("ek -b a topicz list", "ek topicz -b a list");
        check("ek -b a", "ek");
        check("ek --version", "ek --version");
        check("ek topics -b", "ek topics -b");
        check("ek publish -X a=b -d -b", "ek publish -X a=b -d -b");
    }
}
