//! The guard: leaves no process behind, even if the demo itself is killed.
//!
//! A small shell process reads the ids of the demo's children from a pipe. When the pipe closes,
//! however the demo ended, it kills the children that are still listed.

use anyhow::Context;
use evenkeel::testing::Reaper;
use std::process::Stdio;

/// Keeps the list of living children from lines `+ PID` and `- PID`.
const SCRIPT: &str = r#"
pids=' '
while read -r change pid; do
    case $change in
        +) pids="$pids$pid " ;;
        -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -s KILL "$pid" 2>/dev/null; done
"#;

/// The guard process. Dropping it kills every child that is still listed.
pub(crate) struct Guard(Reaper);

impl Guard {
    /// Starts the guard.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let shell = Reaper::spawn(SCRIPT, [""; 0], Stdio::null());
        shell
            .map(Self)
            .context("cannot run sh, which guards the demo's processes")
    }

    /// Lists a child that was started.
    pub(crate) fn watch(&mut self, pid: u32) -> anyhow::Result<()> {
        self.send('+', pid)
    }

    /// Removes a reaped child: its id may soon belong to another process.
    pub(crate) fn forget(&mut self, pid: u32) -> anyhow::Result<()> {
        self.send('-', pid)
    }

    fn send(&mut self, change: char, pid: u32) -> anyhow::Result<()> {
        let line = format!("{change} {pid}\n");
        let sent = self.0.write_line(&line);
        sent.context("the guard process is gone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    fn sleeper() -> Child {
        Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep runs")
    }

    #[test]
    fn dropping_the_guard_kills_listed_processes_and_spares_forgotten_ones() {
        let mut guard = Guard::start().expect("sh runs");
        let (mut first, mut struck, mut last) = (sleeper(), sleeper(), sleeper());
        for child in [&first, &struck, &last] {
            guard.watch(child.id()).expect("the guard listens");
        }
        guard.forget(struck.id()).expect("the guard listens");
        drop(guard);
        assert_eq!(first.wait().expect("a child of ours").signal(), Some(9));
        assert_eq!(last.wait().expect("a child of ours").signal(), Some(9));
        assert!(struck.try_wait().expect("a child of ours").is_none());
        struck.kill().expect("a child of ours");
        struck.wait().expect("a child of ours");
    }
}
