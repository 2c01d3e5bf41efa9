//! Sends signals by process id, with the shell's builtin `kill`. It needs no unsafe code, and every
//! system that runs the demo has it.

use anyhow::{Context, bail};
use tokio::process::Command;

/// A signal that the demo sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ends the process at once.
    Kill,
    /// Asks the process to drain and end.
    Terminate,
    /// Freezes the process.
    Stop,
    /// Thaws a frozen process.
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

/// Sends `signal` to a child that was not reaped yet, so its id cannot belong to another process.
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
