//! Processes that end with the test, and the output of commands.
//!
//! A test process may end by SIGKILL, in a static that is never dropped, or in a panic. No server
//! may outlive it then: it would hold its port and its memory until the machine restarts. So a
//! server is the child of a shell that waits for the end of a pipe (`reaper.rs`), and not a child
//! of the test. Short commands (`subprocess.rs`) are children that are killed with their future. A
//! program under test (`child.rs`) is a child that is killed with its value.

#[cfg(feature = "testing")]
pub(super) mod child;
pub(super) mod reaper;
pub(super) mod subprocess;
