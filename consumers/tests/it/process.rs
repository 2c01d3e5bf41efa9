//! A daemon as a child process that does not outlive its test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running daemon.
pub(crate) struct Daemon {
    binary: String,
    child: Child,
}

impl Daemon {
    /// Starts a daemon on a store, with additional flags. It logs to the test's output.
    pub(crate) fn start(binary: &str, brokers: &str, store: &Path, flags: &[&str]) -> Self {
        let child = Command::new(binary)
            .args(["--brokers", brokers, "--drain-timeout", "10s", "--store"])
            .arg(store)
            .args(flags)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let binary = binary.to_owned();
        Self { binary, child }
    }

    /// Asks the daemon to stop.
    pub(crate) fn stop(&self) {
        let asked = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", self.child.id())])
            .status()
            .unwrap();
        assert!(asked.success(), "{} is gone already", self.binary);
    }

    /// Waits for the end of a run that has a bound or was stopped. Asserts that everything was
    /// drained and committed.
    pub(crate) fn ends_cleanly(mut self) {
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{}: {ended}", self.binary);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Killing a child that has ended already fails, which is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
