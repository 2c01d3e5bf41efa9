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
CSV follows RFC 4180: lines end in LF, CRLF or CR, and a quoted field may contain line breaks. At a
quote that is not closed, or is inside an unquoted field, the import stops and names the line,
because the following text may be the inside of a field. Text is UTF-8, with or without a byte order
mark.

An event's id is derived from the content of its line. Importing a file twice, or a part of it, has
no second effect.

A bad line is named by its number and counted. After Ctrl-C or a failure, the command prints up to
which line all lines are settled, and stores that in FILE.progress. The same command then continues
there, if the file and the cluster's id are unchanged.

";

/// What to import and how, as given on the command line.
#[derive(Debug, Clone, Args)]
pub struct ImportArgs {
    /// The file to read; - or nothing reads standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Format of the lines [default: by the file's name: .csv, .jsonl, .ndjson or .json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Separator of the fields of a CSV: one character, or tab [default: the one of a first line
    /// such as sep=; else a comma]
    #[arg(short, long, value_name = "CHARACTER", value_parser = parse_delimiter)]
    delimiter: Option<u8>,
    /// What to do at a line that is bad
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    /// Start at the first line, even if an interrupted import of this file could continue
    #[arg(long)]
    restart: bool,
    /// Skip the first N lines; an interrupted import of standard input prints N. A CSV header is
    /// read in any case
    #[arg(long, value_name = "N", conflicts_with = "restart")]
    skip_lines: Option<u64>,
    /// Show no progress. Bad lines are still named
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
        _ => Err("write tab, or one ASCII character but no quote, line break or space".to_owned()),
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
                Usage("unknown format: set --format csv or --format jsonl".to_owned())
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
