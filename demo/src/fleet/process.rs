//! One process that the demo started: its log, its signals, its end.

use super::guard::Guard;
use super::signal::{self, Signal};
use anyhow::Context;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// What to start.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// How the process is called in lines and log files.
    pub(crate) name: String,
    pub(crate) executable: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Where its standard error goes, appended; standard output too, unless `output` says otherwise.
    pub(crate) log: PathBuf,
    pub(crate) output: Option<PathBuf>,
}

/// A running process, or one that ended and was not reaped yet. Dropping it kills it.
pub(crate) struct Process {
    pid: u32,
    child: Child,
}

impl Process {
    /// Starts `program` in a process group of its own (Ctrl-C is for the demo, which stops the others in order) and has
    /// the guard watch it.
    pub(crate) fn start(program: &Program, guard: &mut Guard) -> anyhow::Result<Self> {
        let log = append_to(&program.log)?;
        let output = match &program.output {
            Some(path) => append_to(path)?,
            None => log.try_clone()?,
        };
        let mut command = Command::new(&program.executable);
        // The shop's own variables would win over the defaults that the demo relies on.
        let variables = std::env::vars_os().map(|(name, _)| name);
        for name in variables.filter(|name| name.to_string_lossy().starts_with("SHOP_")) {
            command.env_remove(name);
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

    /// Sends a signal. One to a process that ended meanwhile is no error: it is not reaped yet.
    pub(crate) async fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        signal::send(signal, self.pid).await
    }

    /// How it ended, if it did.
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
