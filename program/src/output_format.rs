//! Output formats.
//!
//! Exhaustive on purpose: a command that takes this type supports each of them. What is no table,
//! such as a record or a dead letter, has formats of its own (`evenkeel consume`, `dlq show`).

use clap::ValueEnum;

/// How a listing is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns for people.
    #[default]
    Table,
    /// One JSON document: an array of rows, or one object where a command shows one thing.
    Json,
    /// One JSON object a line.
    Jsonl,
}
