//! A program that a test runs as a child process.
//!
//! Owns its output and its end. Independent of what the program does.

use crate::testing::{StartError, wait};
use serde_json::Value;
use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;

/// Prefixes of the variables that [`ChildProcess::command`] removes.
const REMOVED: [&str; 3] = ["KAFKA_", "BOOTSTRAP_SERVERS", "EVENKEEL_"];

/// A running program, for tests of a service or a command as its users run it. It is killed when
/// the value is dropped.
///
/// Its output is read while it runs, so that a program that prints much does not block. Every wait
/// has a limit, and a wait that exceeds it panics with the program's output so far.
///
/// ```no_run
/// use evenkeel::testing::ChildProcess;
/// use std::time::Duration;
///
/// # async fn a_test(brokers: &str) -> Result<(), evenkeel::testing::StartError> {
/// const WITHIN: Duration = Duration::from_secs(30);
/// let mut command = ChildProcess::command("target/debug/order-mailer");
/// command.env("KAFKA_BOOTSTRAP_SERVERS", brokers);
/// let service = ChildProcess::start(command)?;
/// service.printed("started", WITHIN).await;
/// service.signal("TERM");
/// service.finished(WITHIN).await.code(0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChildProcess {
    name: String,
    id: u32,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Capture,
    stderr: Capture,
}

/// Exit code and output of a program that has ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Finished {
    /// Exit code. `None` if a signal ended the program.
    pub code: Option<i32>,
    /// Standard output. Empty if it was not captured.
    pub stdout: String,
    /// Standard error. Empty if it was not captured.
    pub stderr: String,
}

impl ChildProcess {
    /// A command for `program` with an empty standard input and captured output. Variables that
    /// name a cluster or change evenkeel's behaviour are removed: all that begin with `KAFKA_`,
    /// `BOOTSTRAP_SERVERS` or `EVENKEEL_`. Add arguments and variables, or replace a stream.
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if REMOVED.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a command. Streams that it pipes are captured. Call it within a Tokio runtime with
    /// I/O enabled, as `#[tokio::test]` has.
    ///
    /// # Errors
    /// If the program is missing or cannot be run. [`required`](fn@crate::testing::required) skips
    /// the test then.
    pub fn start(mut command: Command) -> Result<Self, StartError> {
        let name = command.as_std().get_program().to_string_lossy();
        let name = name.into_owned();
        let spawned = command.kill_on_drop(true).spawn();
        let mut child = spawned.map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::NotFound => format!("the command `{name}` was not found"),
                _ => format!("`{name}` cannot be run: {error}"),
            };
            StartError::server("program", reason)
        })?;
        Ok(Self {
            id: child.id().unwrap_or_default(),
            stdin: child.stdin.take(),
            stdout: Capture::of(child.stdout.take()),
            stderr: Capture::of(child.stderr.take()),
            name,
            child,
        })
    }

    /// Runs a command to its end, with `input` on standard input. A program that ends before it
    /// has read its input is no error. An empty `input` leaves the command's standard input as it
    /// is.
    ///
    /// # Panics
    /// If the program cannot be started, or as [`ChildProcess::finished`].
    pub async fn run(mut command: Command, input: impl AsRef<[u8]>, within: Duration) -> Finished {
        let input = input.as_ref().to_owned();
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let mut child = Self::start(command).unwrap_or_else(|error| panic!("{error}"));
        let stdin = child.stdin().filter(|_| !input.is_empty());
        let write = async {
            if let Some(mut stdin) = stdin {
                // A program that fails early does not read its input.
                let _ = stdin.write_all(&input).await;
            }
        };
        tokio::join!(write, child.finished(within)).1
    }

    /// Process id. It stays after the end, when the system may reuse it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Standard input, once and if the command pipes it. It is closed when the returned value is
    /// dropped, otherwise after the end of the program.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes()).into_owned()
    }

    /// Whether the program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program has printed a line that contains `text`, on either stream, and
    /// returns the first one.
    ///
    /// # Panics
    /// If it prints none within `within`, or ends before.
    pub async fn printed(&self, text: &str, within: Duration) -> String {
        let what = format!("`{}` prints {text:?}", self.name);
        wait::eventually(&what, within, || async {
            let is_over = self.stdout.is_over() && self.stderr.is_over();
            let found = self.stdout.line_with(text);
            let found = found.or_else(|| self.stderr.line_with(text));
            assert!(
                found.is_some() || !is_over,
                "not before it closed its output: {what}\n{}",
                self.output()
            );
            found
        })
        .await
    }

    /// Sends a signal, such as `INT`, `TERM` or `STOP`.
    ///
    /// # Panics
    /// If the program has ended and was waited for.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().map(|pid| pid.to_string());
        let Some(pid) = pid else {
            panic!("`{}` has ended already", self.name);
        };
        // The shell's builtin `kill`: a program of that name may be missing.
        let sent = std::process::Command::new("sh")
            .args(["-c", r#"kill -s "$1" "$2""#, "sh", signal, &pid])
            .status();
        assert!(
            sent.is_ok_and(|status| status.success()),
            "SIG{signal} cannot be sent to `{}`",
            self.name
        );
    }

    /// Kills the program (SIGKILL), as a crash does. Returns when it has ended, at once if it had
    /// ended before.
    ///
    /// # Panics
    /// If the system refuses to kill it.
    pub async fn kill(&mut self) {
        if self.is_running()
            && let Err(error) = self.child.kill().await
        {
            panic!("`{}` cannot be killed: {error}", self.name);
        }
    }

    /// Waits for the end of the program and of its output.
    ///
    /// # Panics
    /// If it does not end within `within`, and if its output is not UTF-8.
    pub async fn finished(mut self, within: Duration) -> Finished {
        let ended = async {
            let status = self.child.wait().await;
            self.stdout.end().await;
            self.stderr.end().await;
            status
        };
        match tokio::time::timeout(within, ended).await {
            Ok(Ok(status)) => Finished {
                code: status.code(),
                stdout: self.stdout.text("standard output"),
                stderr: self.stderr.text("standard error"),
            },
            Ok(Err(error)) => panic!("`{}` cannot be waited for: {error}", self.name),
            Err(_) => panic!(
                "not within {within:?}: `{}` ends\n{}",
                self.name,
                self.output()
            ),
        }
    }

    /// Both streams so far.
    fn output(&self) -> String {
        let [stdout, stderr] = [&self.stdout, &self.stderr].map(|stream| stream.bytes());
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
    }
}

impl Finished {
    /// Asserts the exit code.
    ///
    /// # Panics
    /// If it is another one.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{self}");
        self
    }

    /// Standard output as one JSON document.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_str(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("standard output is no JSON: {error}: {self}"),
        }
    }

    /// Standard output as JSON lines.
    ///
    /// # Panics
    /// If a line is no JSON.
    #[track_caller]
    pub fn rows(&self) -> Vec<Value> {
        let rows = self.stdout.lines().map(serde_json::from_str);
        let rows: Result<Vec<Value>, serde_json::Error> = rows.collect();
        match rows {
            Ok(rows) => rows,
            Err(error) => panic!("a line is no JSON: {error}: {self}"),
        }
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "exit code {code:?}\n{stdout}\n{stderr}")
    }
}

/// A stream of a program, read by a task while the program runs.
#[derive(Debug)]
struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// `None` for a stream that is not captured, or whose end was waited for.
    reading: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&bytes);
        let reading = stream.map(|mut stream| {
            tokio::spawn(async move {
                let mut part = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut part).await {
                    let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
                    read.extend_from_slice(&part[..length]);
                }
            })
        });
        Self { bytes, reading }
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.clone()
    }

    /// The first complete line that contains `text`.
    fn line_with(&self, text: &str) -> Option<String> {
        let printed = String::from_utf8_lossy(&self.bytes()).into_owned();
        let mut lines = printed.split_inclusive('\n');
        let line = lines.find(|line| line.ends_with('\n') && line.contains(text))?;
        Some(line.trim_end().to_owned())
    }

    fn is_over(&self) -> bool {
        self.reading.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the stream is closed.
    async fn end(&mut self) {
        if let Some(reading) = self.reading.take() {
            // The task neither panics nor is it aborted.
            let _ = reading.await;
        }
    }

    fn text(&self, what: &str) -> String {
        match String::from_utf8(self.bytes()) {
            Ok(text) => text,
            Err(error) => panic!("{what} is not UTF-8: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(20);

    fn sh(script: &str) -> Command {
        let mut command = ChildProcess::command("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn code_and_output_of_a_program_are_returned() {
        let finished = ChildProcess::run(sh("cat; echo no >&2; exit 3"), "[1]\n[2]\n", WITHIN);
        let finished = finished.await.code(3);
        assert_eq!(finished.rows(), [Value::from([1]), Value::from([2])]);
        assert_eq!(finished.stderr, "no\n");
    }

    #[tokio::test]
    async fn output_is_seen_while_the_program_runs() {
        let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done";
        let mut child = ChildProcess::start(sh(script)).expect("sh is there");
        assert_eq!(child.printed("rea", WITHIN).await, "ready");
        assert!(child.is_running());
        child.signal("TERM");
        child.finished(WITHIN).await.code(7);
    }

    #[tokio::test]
    async fn a_killed_program_has_no_exit_code() {
        let mut child = ChildProcess::start(sh("exec sleep 60")).expect("sh is there");
        child.kill().await;
        assert!(!child.is_running());
        assert_eq!(child.finished(WITHIN).await.code, None);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 50ms: `sh` ends")]
    async fn a_program_that_hangs_is_named() {
        ChildProcess::run(sh("exec sleep 60"), "", Duration::from_millis(50)).await;
    }

    #[tokio::test]
    #[should_panic(expected = "not before it closed its output: `sh` prints \"ready\"")]
    async fn a_program_that_ends_silently_is_named() {
        let child = ChildProcess::start(sh("echo other")).expect("sh is there");
        child.printed("ready", WITHIN).await;
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let started = ChildProcess::start(ChildProcess::command("no-such-program"));
        let error = started.expect_err("there is no such program").to_string();
        assert!(error.contains("`no-such-program` was not found"), "{error}");
    }
}
