//! Output formats.
//!
//! Exhaustive on purpose: every listing of every program supports each of them.

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
