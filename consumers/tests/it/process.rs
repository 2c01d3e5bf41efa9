//! A daemon as a child process that does not outlive its test.

use evenkeel::testing::ChildProcess;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// No daemon of these tests takes that long to its end unless it hangs.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);

/// A running daemon.
pub(crate) struct Daemon(ChildProcess);

impl Daemon {
    /// Starts a daemon on a store, with additional flags. It logs to the test's output.
    pub(crate) fn start(binary: &str, brokers: &str, store: &Path, flags: &[&str]) -> Self {
        let mut command = ChildProcess::command(binary);
        command
            .args(["--brokers", brokers, "--drain-timeout", "10s", "--store"])
            .arg(store)
            .args(flags)
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        Self(ChildProcess::start(command).unwrap())
    }

    /// Asks the daemon to stop.
    pub(crate) fn stop(&self) {
        self.0.signal("TERM");
    }

    /// Waits for the end of a run that has a bound or was stopped. Asserts that everything was
    /// drained and committed.
    pub(crate) async fn ends_cleanly(self) {
        self.0.finished(WITHIN).await.code(0);
    }
}
