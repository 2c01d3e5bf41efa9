//! Signals by process id, through the shell's own `kill`: no unsafe code, and every system that runs the demo has it.

use anyhow::{Context, bail};
use tokio::process::Command;

/// A signal that the demo sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ends the process at once.
    Kill,
    /// Asks it to drain and end.
    Terminate,
    /// Freezes it.
    Stop,
    /// Lets a frozen one go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// Sends `signal` to a child of ours that was not reaped yet, so that its id cannot be another process's by now.
pub(crate) async fn send(signal: Signal, pid: u32) -> anyhow::Result<()> {
    let status = Command::new("sh")
        .args(["-c", r#"kill -s "$1" "$2" 2>/dev/null"#, "kill"])
        .args([signal.name(), &pid.to_string()])
        .status()
        .await
        .context("cannot run sh, which sends the signals")?;
    if !status.success() {
        bail!("SIG{} could not be sent to process {pid}", signal.name());
    }
    Ok(())
}
