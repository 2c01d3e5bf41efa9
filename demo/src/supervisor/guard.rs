//! The guard: leaves no process behind, even if the demo itself is killed.
//!
//! A small shell process reads the ids of the demo's children from a pipe. When the pipe closes,
//! however the demo ended, it kills the children that are still listed. It has its own process
//! group, so Ctrl-C does not reach it.

use anyhow::Context;
use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

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
pub(crate) struct Guard {
    process: Child,
    list: Option<ChildStdin>,
}

impl Guard {
    /// Starts the guard.
    pub(crate) fn start() -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run sh, which guards the demo's processes")?;
        let list = process.stdin.take();
        Ok(Self { process, list })
    }

    /// Lists a child that was started.
    pub(crate) fn watch(&mut self, pid: u32) -> anyhow::Result<()> {
        self.tell('+', pid)
    }

    /// Removes a reaped child: its id may soon belong to another process.
    pub(crate) fn forget(&mut self, pid: u32) -> anyhow::Result<()> {
        self.tell('-', pid)
    }

    fn tell(&mut self, change: char, pid: u32) -> anyhow::Result<()> {
        let list = self.list.as_mut().context("the guard has no pipe")?;
        writeln!(list, "{change} {pid}").context("the guard process is gone")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.list.take());
        // A failed wait cannot be handled, and the demo is ending anyway.
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

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
