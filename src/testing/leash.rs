//! A shell that ends what we started as soon as we are gone, however we went.
//!
//! It reads from a pipe that only this process holds open: dropping the [`Leash`], a normal exit without running
//! destructors (statics), a panic and SIGKILL all close it. A signal hook or a parent-death signal would not do: the first
//! misses SIGKILL, the second fires when the thread that started the child ends, as a test's thread does.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// A running shell script that cleans up when its standard input ends. Unix only: it needs `sh`.
pub(super) struct Leash {
    shell: Child,
}

impl Leash {
    /// Starts `script` with `arguments` as `$1`, `$2`, ...; the script must end soon after its standard input ends.
    ///
    /// It runs in a process group of its own, so that Ctrl-C in a terminal reaches us but neither it nor its children.
    pub(super) fn hold<I>(script: &str, arguments: I, output: Stdio) -> std::io::Result<Self>
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

    /// Writes `line` to the script's standard input.
    pub(super) fn tell(&mut self, line: &str) -> std::io::Result<()> {
        match &mut self.shell.stdin {
            Some(input) => input.write_all(line.as_bytes()),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Drop for Leash {
    /// Lets go and waits for the script's end, a second at most in practice.
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            tracing::warn!(%error, "cannot tell whether the shell that cleans up has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_the_leash_runs_the_rest_of_the_script() -> std::io::Result<()> {
        let dir = tempfile::tempdir()?;
        let mark = dir.path().join("cleaned-up");
        let script = "read -r _; : >\"$1\"";
        let leash = Leash::hold(script, [&mark], Stdio::null())?;
        assert!(!mark.exists());
        drop(leash);
        assert!(mark.exists());
        Ok(())
    }
}
