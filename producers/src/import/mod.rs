//! `import`: publishes the lines of a file or of standard input as events, in order.
//!
//! Reading, sending and settling run concurrently, each with a bound: a thread reads lines, one
//! task sends them, one task settles them in order. Only settled lines count as done. [`resume`]
//! stores their number.

pub mod format;
mod input;
mod lines;
mod plan;
pub mod resume;
pub mod row;
mod run;
mod settle;
mod summary;

pub use plan::{OnError, Plan};
pub use run::import;

use clap::Args;
use evenkeel_program::duration::parse_duration;
use evenkeel_program::exit::Usage;
use format::Format;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The guarantees of an import, for help texts.
pub(crate) const PROMISES: &str = "\
CSV is read as RFC 4180 has it: lines end in LF, CRLF or CR, and a quoted field may hold line breaks. Where a quote is \
not closed, or stands inside of an unquoted field, the import stops and names the line: what follows could be the inside of a field. \
Text is UTF-8, with or without a byte order mark.

An event's id follows from the content of its line, so importing a file twice, or a part of it, has no second effect.

A bad line is named by its number and counted. After Ctrl-C, or a failure, the command says up to which line all is \
settled, and keeps that in FILE.progress, so that the same command goes on there. It counts only for the unchanged file and \
the same cluster, as its id tells.

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
    /// What separates the fields of a CSV: one character, or tab; a comma, unless a first line such
    /// as sep=; says otherwise
    #[arg(short, long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    delimiter: Option<u8>,
    /// What to do at a line that is bad
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Begin at the first line though an interrupted import of this file could go on
    #[arg(long)]
    restart: bool,
    /// Pass by the first N lines, as an interrupted import of standard input told; a CSV header is
    /// read all the same
    #[arg(long, value_name = "N", conflicts_with = "restart")]
    skip_lines: Option<u64>,
    /// Show no progress; bad lines are named all the same
    #[arg(short, long)]
    quiet: bool,
    /// How long to wait for acknowledgements after Ctrl-C
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    drain_timeout: Duration,
}

/// Parses a field separator.
fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [character] if !b"\"\r\n ".contains(character) && character.is_ascii() => Ok(*character),
        _ => Err("one character of ASCII that is no quote, line break or space, or tab".to_owned()),
    }
}

impl ImportArgs {
    /// Validates the arguments. Fails if the format is unknown.
    pub fn build(self) -> Result<Plan, Usage> {
        let file = (self.file != Path::new("-")).then_some(self.file);
        let format = self
            .format
            .or_else(|| Format::of_name(file.as_deref()?))
            .ok_or_else(|| {
                Usage(
                    "the name does not tell the format: say --format csv or --format jsonl"
                        .to_owned(),
                )
            })?;
        Ok(Plan {
            file,
            format,
            delimiter: self.delimiter,
            on_error: self.on_error,
            restart: self.restart,
            skip_lines: self.skip_lines,
            quiet: self.quiet,
            drain_timeout: self.drain_timeout,
        })
    }
}
