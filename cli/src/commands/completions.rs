//! `evenkeel completions` and `evenkeel man`: what shells and manuals need, made from the arguments themselves.

use crate::exit::Ending;
use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Print the completions of a shell, for example: evenkeel completions bash > /etc/bash_completion.d/evenkeel
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a folder.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Folder to write a page per command into.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints completions.
pub(crate) fn run(args: CompletionsArgs) -> anyhow::Result<Ending> {
    let mut script = Vec::new();
    let mut command = crate::args::Args::command();
    clap_complete::generate(args.shell, &mut command, "evenkeel", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Ending::Done)
}

/// Prints or writes manual pages.
pub(crate) fn run_man(args: ManArgs) -> anyhow::Result<Ending> {
    let command = crate::args::Args::command();
    match args.dir {
        Some(dir) => {
            std::fs::create_dir_all(&dir)
                .and_then(|()| clap_mangen::generate_to(command, &dir))
                .with_context(|| format!("writing manual pages into {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command).render(&mut page)?;
            std::io::stdout().write_all(&page)?;
        }
    }
    Ok(Ending::Done)
}
