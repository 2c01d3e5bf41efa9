//! `evenkeel completions` and `evenkeel man`: generated from the arguments.
//!
//! Both use the command line of [`help::command`], so they have the texts, examples and exit codes
//! of the help.

use crate::help;
use crate::output::print;
use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use evenkeel_program::exit::Ending;
use std::io;
use std::path::{Path, PathBuf};

/// Print the completion script of a shell.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a folder.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder for one page per command; it is created if it is missing.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the completion script. The script is complete in memory before it is written, so a reader
/// that leaves early gets no broken half.
pub(crate) fn run(args: CompletionsArgs, mut command: Command) -> anyhow::Result<Ending> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "evenkeel", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(Ending::Done)
}

/// Prints the page of the tool, or writes one page per command into a folder. Existing pages are
/// replaced.
pub(crate) fn run_man(args: ManArgs, mut command: Command) -> anyhow::Result<Ending> {
    command.build();
    match args.dir {
        Some(dir) => {
            std::fs::create_dir_all(&dir)
                .and_then(|()| write_pages(&command, "", &dir))
                .with_context(|| format!("writing manual pages into {}", dir.display()))?;
        }
        None => print(&String::from_utf8(help::page(&command, "")?)?)?,
    }
    Ok(Ending::Done)
}

/// Writes the page of a command and those of its subcommands.
fn write_pages(command: &Command, path: &str, dir: &Path) -> io::Result<()> {
    for inner in command.get_subcommands() {
        let path = format!("{path} {}", inner.get_name());
        write_pages(inner, path.trim(), dir)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    std::fs::write(dir.join(format!("{name}.1")), help::page(command, path)?)
}
