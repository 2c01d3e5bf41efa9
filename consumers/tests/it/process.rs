//! A daemon as a child process that does not outlive its test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A running daemon.
pub(crate) struct Daemon {
    binary: String,
    child: Child,
}

impl Daemon {
    /// Starts a daemon on a store; it logs where the test does.
    pub(crate) fn start(binary: &str, brokers: &str, store: &Path) -> Self {
        let child = Command::new(binary)
            .args(["--brokers", brokers, "--drain-timeout", "10s", "--store"])
            .arg(store)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let binary = binary.to_owned();
        Self { binary, child }
    }

    /// Asks the daemon to stop, and expects that it does so cleanly.
    pub(crate) fn stop_cleanly(mut self) {
        let asked = Command::new("sh")
            .args(["-c", &format!("kill -TERM {}", self.child.id())])
            .status()
            .unwrap();
        assert!(asked.success(), "{} is gone already", self.binary);
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{}: {ended}", self.binary);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A child that ended already cannot be killed, and that is what this is for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
