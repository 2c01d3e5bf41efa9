//! The guard: leaves no process and no file behind, even if this process is killed.
//!
//! A small shell waits for the end of a pipe that only this process holds open. Then it kills the
//! process group of the shop and removes its directory.

use anyhow::Context;
use evenkeel::testing::Reaper;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

/// A line before the end of the pipe says that every process has ended: the id of the group may
/// then belong to others.
const SCRIPT: &str = r#"
read -r _ || kill -s KILL -- "-$1" 2>/dev/null
rm -rf -- "$2"
"#;

/// The guard. Dropping it kills the group, and removes the directory.
pub(in crate::workloads) struct Guard(Reaper);

impl Guard {
    /// Guards a process group whose leader was just started, and a directory.
    pub(in crate::workloads) fn start(group: u32, directory: &Path) -> anyhow::Result<Self> {
        let group = group.to_string();
        let arguments: [&OsStr; 2] = [group.as_ref(), directory.as_ref()];
        let shell = Reaper::spawn(SCRIPT, arguments, Stdio::null());
        shell
            .map(Self)
            .context("cannot run sh, which guards the processes")
    }

    /// Removes the directory only: every process of the group has ended.
    pub(in crate::workloads) fn release(mut self) -> anyhow::Result<()> {
        self.0.write_line("\n").context("the guard is gone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};

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
