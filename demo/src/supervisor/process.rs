//! One process that the demo started: its log, its signals, its end.

use super::guard::Guard;
use super::signal::{self, Signal};
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// The program to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// Name of the process in messages and log files.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// File to which its standard error is appended; standard output too, unless `output` is set.
    pub(crate) log: PathBuf,
    pub(crate) output: Option<PathBuf>,
}

/// A running process, or one that ended and was not reaped yet. Dropping it kills it.
pub(crate) struct Process {
    pid: u32,
    child: Child,
}

impl Process {
    /// Starts `program` in its own process group, and registers it with the guard. Ctrl-C reaches
    /// only the demo, which stops the others in order.
    pub(crate) fn start(program: &Program, guard: &mut Guard) -> anyhow::Result<Self> {
        let log = append_to(&program.log)?;
        let output = match &program.output {
            Some(path) => append_to(path)?,
            None => log.try_clone()?,
        };
        let mut command = Command::new(&program.executable);
        // The programs' variables would override the defaults on which the demo relies.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("SHOP_") || text.starts_with("GATEWAY_") {
                command.env_remove(&name);
            }
        }
        let child = command
            .args(&program.arguments)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot run {}", program.executable.display()))?;
        let pid = child
            .id()
            .context("a child that was just started has an id")?;
        guard.watch(pid)?;
        Ok(Self { pid, child })
    }

    /// Sends a signal. A process that has ended meanwhile is no error: it is not reaped yet.
    pub(crate) async fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        signal::send(signal, self.pid).await
    }

    /// Its exit status. `None` while it runs.
    pub(crate) fn ended(&mut self, guard: &mut Guard) -> anyhow::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_some() {
            guard.forget(self.pid)?;
        }
        Ok(status)
    }
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// The last lines of a log, to show why a process failed.
pub(crate) fn tail(log: &Path, lines: usize) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

impl Program {
    /// Fails with the end of the program's log if its exit status is not success.
    pub(crate) fn ended_well(&self, status: ExitStatus) -> anyhow::Result<()> {
        if status.success() {
            return Ok(());
        }
        let log = tail(&self.log, 5);
        bail!("{} ended with {status}; its log ends:\n{log}", self.name)
    }
}
