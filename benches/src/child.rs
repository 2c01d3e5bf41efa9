//! A child process whose output is in a file. Only a process that was started here is signalled,
//! before it is waited for.

use anyhow::{Context, ensure};
use std::fs::File;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// Lines of a log that are shown when its process fails.
const LOG_LINES: usize = 5;

/// A running process, or one that has ended and was not waited for. Dropping it kills it.
pub(crate) struct LoggedChild {
    name: String,
    pid: u32,
    child: Child,
    log: PathBuf,
}

impl LoggedChild {
    /// Starts a process, with its output in the file `log`.
    pub(crate) fn start(mut command: Command, name: &str, log: PathBuf) -> anyhow::Result<Self> {
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            pid: child
                .id()
                .context("a child that was just started has an id")?,
            child,
            log,
        })
    }

    /// Its name, for messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails with the end of its log if the process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(status)),
        }
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills it, and waits for its end.
    pub(crate) async fn kill(&mut self) -> std::io::Result<()> {
        self.child.kill().await
    }

    /// The error of a process that did not end well.
    pub(crate) fn failure(&self, status: ExitStatus) -> anyhow::Error {
        anyhow::anyhow!("{} ended with {status}; {}", self.name, self.log_end())
    }

    /// The end of its log, for messages.
    pub(crate) fn log_end(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("the log of {} ends:\n{last}", self.name)
    }
}

/// Sends SIGTERM to these processes.
pub(crate) async fn terminate(
    children: impl IntoIterator<Item = &LoggedChild>,
) -> anyhow::Result<()> {
    let pids = children.into_iter().map(|child| child.pid.to_string());
    let sent = Command::new("sh")
        .args(["-c", r#"kill -s TERM "$@""#, "sh"])
        .args(pids)
        .status()
        .await
        .context("cannot run sh, which sends the signals")?;
    ensure!(sent.success(), "SIGTERM could not be sent");
    Ok(())
}
