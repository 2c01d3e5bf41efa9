//! A shell that cleans up as soon as this process is gone, however it ended.
//!
//! The shell reads from a pipe that only this process holds open. Dropping the [`Reaper`], a normal
//! exit without destructors (statics), a panic and SIGKILL all close the pipe. Neither alternative
//! is sufficient: a signal hook misses SIGKILL, and a parent-death signal fires when the thread
//! that started the child ends, as a test's thread does.

#[cfg(feature = "testing")]
use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A running shell script that cleans up when its standard input ends. Unix only: it needs `sh`.
pub(in crate::testing) struct Reaper {
    shell: Child,
}

impl Reaper {
    /// Starts `script` with `arguments` as `$1`, `$2`, .... The script must end soon after its
    /// standard input ends.
    ///
    /// It runs in its own process group, so that Ctrl-C in a terminal reaches neither it nor its
    /// children.
    pub(in crate::testing) fn spawn<I>(
        script: &str,
        arguments: I,
        output: Stdio,
    ) -> std::io::Result<Self>
    where
        I: IntoIterator,
        I::Item: AsRef<std::ffi::OsStr>,
    {
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

    /// Writes `line` to the script's standard input. The line needs its line break. An error means
    /// that the script has ended.
    #[cfg(feature = "testing")]
    pub(in crate::testing) fn write_line(&mut self, line: &str) -> std::io::Result<()> {
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
