//! Results on standard output: a table for people, JSON for programs. Diagnostics never go here.

use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;
use std::io::{ErrorKind, Write};

/// The form of what goes to standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Jsonl,
}

/// Something with a fixed set of columns.
pub trait Columns: Serialize {
    /// The columns' names, as in its JSON form.
    const NAMES: &'static [&'static str];
    /// The columns' texts, as many as there are names.
    fn texts(&self) -> Vec<String>;
}

impl Output {
    /// Writes one thing; as a table, a line per column.
    pub fn one<T: Columns>(self, item: &T) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => {
                let mut table = plain_table();
                table.add_rows(
                    T::NAMES
                        .iter()
                        .zip(item.texts())
                        .map(|(name, text)| [name.replace('_', " "), text]),
                );
                table.trim_fmt()
            }
            Self::Json => serde_json::to_string_pretty(item)?,
            Self::Jsonl => serde_json::to_string(item)?,
        };
        print(&text)
    }

    /// Writes a list; as a table, a line per thing; as JSON, one array.
    pub fn list<T: Columns>(self, items: &[T]) -> anyhow::Result<()> {
        let text = match self {
            Self::Table => {
                let mut table = plain_table();
                table.set_header(
                    T::NAMES
                        .iter()
                        .map(|name| name.to_uppercase().replace('_', "-")),
                );
                table.add_rows(items.iter().map(Columns::texts));
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
            false => print(&text),
        }
    }
}

/// Writes a result. A reader that left before its end has read enough: the exit code is the one that the command earned.
fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}
