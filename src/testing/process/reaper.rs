//! A shell that cleans up as soon as this process is gone, however it ended.
//!
//! The shell reads from a pipe that only this process holds open. Dropping the [`Reaper`], a normal
//! exit without destructors (statics), a panic and SIGKILL all close the pipe. Neither alternative
//! is sufficient: a signal hook misses SIGKILL, and a parent-death signal fires when the thread
//! that started the child ends, as a test's thread does.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A running shell script that cleans up when its standard input ends: when this value is dropped,
/// and when this process ends in any way, also by SIGKILL. Unix only: it needs `sh`.
///
/// ```no_run
/// use evenkeel::testing::Reaper;
/// use std::process::{Command, Stdio};
///
/// # fn example() -> std::io::Result<()> {
/// let child = Command::new("sleep").arg("600").spawn()?;
/// let script = "read -r _; kill -s KILL \"$1\"";
/// // While this lives, the child does. Wait for the child only after it is dropped.
/// let reaper = Reaper::spawn(script, [child.id().to_string()], Stdio::null())?;
/// # drop(reaper);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Starts `script` with `arguments` as `$1`, `$2`, .... The script must end soon after its
    /// standard input ends: the drop waits for it. `output` is its standard output.
    ///
    /// It runs in its own process group, so that Ctrl-C in a terminal reaches neither it nor its
    /// children.
    ///
    /// # Errors
    /// If `sh` cannot be run.
    pub fn spawn<A: AsRef<OsStr>>(
        script: &str,
        arguments: impl IntoIterator<Item = A>,
        output: Stdio,
    ) -> std::io::Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self {
            shell: command.spawn()?,
        })
    }

    /// Writes `line` to the script's standard input. The line needs its line break.
    ///
    /// # Errors
    /// If the script has ended.
    pub fn write_line(&mut self, line: &str) -> std::io::Result<()> {
        match &mut self.shell.stdin {
            Some(input) => input.write_all(line.as_bytes()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Reaper {
    /// Closes the pipe and waits for the script's end. In practice this takes at most a second.
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "cannot confirm that the clean-up shell has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_reaper_runs_the_rest_of_the_script() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let mark = dir.path().join("cleaned-up");
        let script = "read -r _; : >\"$1\"";
        let reaper = Reaper::spawn(script, [&mark], Stdio::null())?;
        assert!(!mark.exists());
        drop(reaper);
        assert!(mark.exists());
        Ok(())
    }
}
