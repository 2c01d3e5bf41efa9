//! The process of a contestant: started, watched, measured and stopped.

use crate::child::{LoggedChild, terminate};
use crate::measure::usage::{UsageReading, resident_max_mib_of_child};
use crate::workloads::shop::guard::Guard;
use anyhow::bail;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// Time limit of a stop.
const STOP_MAX: Duration = Duration::from_secs(60);
/// The exit code of a JVM that SIGTERM ended.
const ENDED_BY_SIGTERM: i32 = 128 + 15;

/// A contestant's process. Dropping it kills it, and so does the end of this process.
pub(super) struct Peer {
    // Dropped first: while the child is not waited for, the group's id is its own.
    guard: Guard,
    child: LoggedChild,
}

impl Peer {
    /// Starts the contestant, with its output in a file of `directory`.
    pub(super) fn start(
        mut command: Command,
        name: &str,
        directory: &Path,
    ) -> anyhow::Result<Self> {
        command.process_group(0);
        let child = LoggedChild::start(command, name, directory.join("log"))?;
        Ok(Self {
            guard: Guard::start(child.pid(), directory)?,
            child,
        })
    }

    /// The current moment, and what the process has used so far.
    pub(super) fn reading(&self) -> UsageReading {
        UsageReading::of_child(self.child.pid())
    }

    /// The peak of its resident memory, in MiB.
    pub(super) fn resident_max_mib(&self) -> anyhow::Result<f64> {
        resident_max_mib_of_child(self.child.pid())
    }

    /// Fails with the end of its log if the process has ended.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.child.check()
    }

    /// The end of its log, for messages.
    pub(super) fn log_end(&self) -> String {
        self.child.log_end()
    }

    /// Stops the process by SIGTERM. Fails if it does not end well.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        terminate([&self.child]).await?;
        let Ok(ended) = timeout(STOP_MAX, self.child.wait()).await else {
            bail!("{} does not stop; {}", self.child.name(), self.log_end());
        };
        let ended = ended?;
        if !ended.success() && ended.code() != Some(ENDED_BY_SIGTERM) {
            return Err(self.child.failure(ended));
        }
        self.guard.release()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str, directory: &Path) -> Peer {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Peer::start(command, "script", directory).expect("sh runs")
    }

    #[tokio::test]
    async fn a_peer_ends_by_sigterm_as_a_jvm_does() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let peer = start(
            "trap 'exit 143' TERM; echo ready; while :; do sleep 0.1; done",
            directory.path(),
        );
        while !peer.log_end().contains("ready") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        peer.stop().await.expect("it ends well");
    }

    #[tokio::test]
    async fn a_peer_that_ended_is_named_with_its_log() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let mut peer = start("echo no brokers >&2; exit 4", directory.path());
        peer.child.wait().await.expect("a child of ours");
        let error = peer.check().expect_err("it has ended").to_string();
        assert!(error.starts_with("script ended"), "{error}");
        assert!(error.ends_with("no brokers"), "{error}");
    }
}
