//! The validated arguments of an import.

use super::format::Format;
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::Duration;

/// The validated arguments of an import.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) file: Option<PathBuf>,
    pub(super) format: Format,
    pub(super) delimiter: Option<u8>,
    pub(super) on_error: OnError,
    pub(super) restart: bool,
    pub(super) skip_lines: Option<u64>,
    pub(super) quiet: bool,
    pub(super) drain_timeout: Duration,
}

/// What to do at a line that is bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OnError {
    /// Name it and continue; the exit code is 1
    #[default]
    Continue,
    /// Name it and send nothing after it
    Stop,
}
