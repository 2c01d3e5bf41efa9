//! The guard: leaves no process and no file behind, even if this process is killed.
//!
//! A small shell waits for the end of a pipe that only this process holds open. Then it kills the
//! process group of the shop and removes its directory. It has a process group of its own, so
//! Ctrl-C does not reach it.

use anyhow::Context;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A line before the end of the pipe says that every process has ended: the id of the group may
/// then belong to others.
const SCRIPT: &str = r#"
read -r _ || kill -s KILL -- "-$1" 2>/dev/null
rm -rf -- "$2"
"#;

/// The guard. Dropping it kills the group, and removes the directory.
pub(in crate::workloads) struct Guard {
    shell: Child,
}

impl Guard {
    /// Guards a process group whose leader was just started, and a directory.
    pub(in crate::workloads) fn start(group: u32, directory: &Path) -> anyhow::Result<Self> {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &group.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot run sh, which guards the processes")?;
        Ok(Self { shell })
    }

    /// Removes the directory only: every process of the group has ended.
    pub(in crate::workloads) fn release(mut self) -> anyhow::Result<()> {
        let pipe = self.shell.stdin.as_mut();
        let pipe = pipe.context("the guard has a pipe until it is dropped")?;
        writeln!(pipe).context("the guard is gone")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // A failed wait cannot be handled, and the turn is ending anyway.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn sleeper(group: i32) -> Child {
        let mut command = Command::new("sleep");
        let started = command.arg("600").process_group(group).spawn();
        started.expect("sleep runs")
    }

    /// Two processes of a group, and the guard of both with a directory.
    fn guarded() -> ([Child; 2], Guard, tempfile::TempDir) {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        std::fs::write(directory.path().join("store.db"), "rows").expect("it is writable");
        let leader = sleeper(0);
        let member = sleeper(i32::try_from(leader.id()).expect("an id of a process"));
        let guard = Guard::start(leader.id(), directory.path()).expect("sh runs");
        ([leader, member], guard, directory)
    }

    #[test]
    fn dropping_the_guard_kills_the_group_and_removes_the_directory() {
        let (children, guard, directory) = guarded();
        drop(guard);
        for mut child in children {
            assert_eq!(child.wait().expect("a child of ours").signal(), Some(9));
        }
        assert!(!directory.path().exists());
    }

    #[test]
    fn a_released_guard_kills_nothing() {
        let (children, guard, directory) = guarded();
        guard.release().expect("the guard listens");
        for mut child in children {
            assert!(child.try_wait().expect("a child of ours").is_none());
            child.kill().expect("a child of ours");
            child.wait().expect("a child of ours");
        }
        assert!(!directory.path().exists());
    }
}
