//! The validated arguments of a simulation.

use super::content::Content;
use std::path::PathBuf;
use std::time::Duration;

/// The validated arguments of a simulation.
#[derive(Debug, Clone)]
pub struct Simulation {
    pub(super) rate: u32,
    pub(super) rate_file: Option<PathBuf>,
    pub(super) length: Duration,
    pub(super) content: Content,
    pub(super) journal: Option<PathBuf>,
    pub(super) quiet: bool,
    pub(super) drain_timeout: Duration,
}
