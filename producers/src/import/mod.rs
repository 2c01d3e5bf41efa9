//! `import`: events from the lines of a file or of standard input, published in their order.
//!
//! Reading, sending and settling overlap and are bounded each: a thread reads lines, one task sends them, one settles them
//! in their order. Only settled lines count as done; [`resume`] keeps how many those are.

pub mod format;
mod input;
mod lines;
pub mod resume;
pub mod row;
mod run;
mod settle;
mod summary;

pub use run::import;

use crate::connection::parse_duration;
use crate::exit::UsageError;
use clap::{Args, ValueEnum};
use format::Format;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What every import promises, for help texts.
pub(crate) const PROMISES: &str = "\
CSV is read as RFC 4180 has it: lines end in LF, CRLF or CR, and a quoted field may hold line breaks. Where a quote is \
not closed, or stands inside of an unquoted field, the import stops and names the line: what follows could be the inside of a field. \
Text is UTF-8, with or without a byte order mark.

An event's id follows from the content of its line, so importing a file twice, or a part of it, has no second effect.

A bad line is named by its number and counted. After Ctrl-C, or a failure, the command says up to which line all is \
settled, and keeps that in FILE.progress, so that the same command goes on there. It counts only for the unchanged file and \
the same brokers.

";

/// What to import and how, as given on the command line.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file to read; - or nothing reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// How the lines are written; guessed from the file's name (.csv, .jsonl, .ndjson, .json)
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// What to do at a line that is bad
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Begin at the first line though an interrupted import of this file could go on
    #[arg(long)]
    restart: bool,
    /// Pass by the first N lines, as an interrupted import of standard input told; a CSV header is read all the same
    #[arg(long, value_name = "N", conflicts_with = "restart")]
    skip_lines: Option<u64>,
    /// Show no progress; bad lines are named all the same
    #[arg(short, long)]
    quiet: bool,
    /// How long to wait for acknowledgements after Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

/// What to do at a line that is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Name it and go on; the exit code is 1
    #[default]
    Continue,
    /// Name it and send nothing that comes after it
    Stop,
}

/// What to import and how, built and checked.
#[derive(Debug, Clone)]
pub struct Plan {
    file: Option<PathBuf>,
    format: Format,
    on_error: OnError,
    restart: bool,
    skip_lines: Option<u64>,
    quiet: bool,
    drain_timeout: Duration,
}

impl ImportArgs {
    /// Fails where the format cannot be told.
    pub fn build(self) -> Result<Plan, UsageError> {
        let file = (self.file != Path::new("-")).then_some(self.file);
        let format = self
            .format
            .or_else(|| Format::of_name(file.as_deref()?))
            .ok_or_else(|| {
                UsageError(
                    "the name does not tell the format: say --format csv or --format jsonl"
                        .to_owned(),
                )
            })?;
        Ok(Plan {
            file,
            format,
            on_error: self.on_error,
            restart: self.restart,
            skip_lines: self.skip_lines,
            quiet: self.quiet,
            drain_timeout: self.drain_timeout,
        })
    }
}
