//! Results on standard output: a table for people, JSON for programs. Diagnostics go to standard
//! error.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use evenkeel::telemetry::visible;
use evenkeel_program::output_format::OutputFormat;
use evenkeel_program::stdout::{AfterDone, print_json_line};
use serde::Serialize;

/// A result with a fixed set of columns.
pub trait Columns: Serialize {
    /// Names of the columns, equal to the names in JSON.
    const NAMES: &'static [&'static str];
    /// Texts of the columns, as many as there are names.
    fn texts(&self) -> Vec<String>;
}

/// Prints results in a format.
pub trait Print {
    /// Prints one result, in a table with one line per column. `done` describes what was done, for
    /// the error.
    ///
    /// # Errors
    /// If standard output cannot be written.
    fn one<T: Columns>(self, item: &T, done: impl FnOnce() -> String) -> anyhow::Result<()>;

    /// Prints a list: in a table with one line per item, in JSON as one array. `done` describes
    /// what was done, for the error.
    ///
    /// # Errors
    /// If standard output cannot be written.
    fn list<T: Columns>(self, items: &[T], done: impl FnOnce() -> String) -> anyhow::Result<()>;
}

impl Print for OutputFormat {
    fn one<T: Columns>(self, item: &T, done: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => {
                let mut table = plain_table();
                let cells = T::NAMES.iter().zip(item.texts());
                table.add_rows(
                    cells.map(|(name, text)| [name.replace('_', " "), visible(&text).into_owned()]),
                );
                table.trim_fmt()
            }
            Self::Json => serde_json::to_string_pretty(item)?,
            Self::Jsonl => serde_json::to_string(item)?,
        };
        print(&text, done)
    }

    fn list<T: Columns>(self, items: &[T], done: impl FnOnce() -> String) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => {
                let mut table = plain_table();
                table.set_header(
                    T::NAMES
                        .iter()
                        .map(|name| name.to_uppercase().replace('_', "-")),
                );
                let clean = |text: &String| visible(text).into_owned();
                let cells = |item: &T| item.texts().iter().map(clean).collect::<Vec<_>>();
                table.add_rows(items.iter().map(cells));
                table.trim_fmt()
            }
            Self::Json => serde_json::to_string_pretty(items)?,
            Self::Jsonl => {
                let lines: Result<Vec<String>, _> =
                    items.iter().map(serde_json::to_string).collect();
                lines?.join("\n")
            }
        };
        match text.is_empty() {
            true => Ok(()),
            false => print(&text, done),
        }
    }
}

/// Writes a result. A reader that closed the output early is no error: the exit code is that of the
/// command.
fn print(text: &str, done: impl FnOnce() -> String) -> anyhow::Result<()> {
    // Cells are already escaped here, and so is JSON. The rest is escaped on a terminal only.
    print_json_line(text).after_done(done)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}
