//! Processes that end with the test, and the output of commands.

pub(super) mod reaper;
pub(super) mod subprocess;
