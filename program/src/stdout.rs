//! Standard output. All output of commands goes through this module.
//!
//! Two things are decided here once. A reader that closes the pipe early is no failure: `println!`
//! would panic. And text from records cannot control a terminal: escape sequences are made visible,
//! but only there, so that a file or a pipe receives the bytes as they are.

use evenkeel::telemetry::{visible_json, visible_lines};
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, StdoutLock, Write};

/// Standard output whose reader may close it early, as in `evenkeel groups lag | head -1`. Further
/// output is dropped, and the command continues to its exit code.
///
/// It is buffered: call [`flush`](Write::flush) at the end, which reports an error that the drop
/// would ignore.
///
/// ```
/// use evenkeel_program::stdout::Stdout;
/// use std::io::Write;
///
/// # fn main() -> std::io::Result<()> {
/// let mut out = Stdout::to(Vec::new());
/// out.write_json("{\"records\":1}")?;
/// out.flush()?;
/// assert_eq!(out.get_ref(), b"{\"records\":1}");
/// # Ok(())
/// # }
/// ```
pub struct Stdout<W = BufWriter<StdoutLock<'static>>> {
    out: W,
    is_closed: bool,
    is_terminal: bool,
}

impl<W> fmt::Debug for Stdout<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdout")
            .field("is_closed", &self.is_closed)
            .field("is_terminal", &self.is_terminal)
            .finish_non_exhaustive()
    }
}

/// The output could not be written, for another reason than a reader that closed it: a full disk
/// behind a redirection, for example.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
struct StdoutError(#[source] io::Error);

/// Adds what a command has done to an error of its output.
///
/// A command that changed something must say so even if its output cannot be written: its caller
/// would otherwise run it again.
pub trait AfterDone<T> {
    /// Adds the text of `done` to the error.
    ///
    /// # Errors
    /// Returns the error on which it is called.
    fn after_done(self, done: impl FnOnce() -> String) -> anyhow::Result<T>;
}

impl<T> AfterDone<T> for io::Result<T> {
    fn after_done(self, done: impl FnOnce() -> String) -> anyhow::Result<T> {
        self.map_err(|error| {
            let done = done();
            anyhow::Error::from(error).context(format!("{done}, but it cannot be shown"))
        })
    }
}

/// Prints a text. A reader that closed the output is no error. On a terminal, control characters
/// other than line breaks are escaped.
///
/// # Errors
/// If standard output cannot be written.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = Stdout::new();
    match out.is_terminal {
        true => out.write_all(visible_lines(text).as_bytes())?,
        false => out.write_all(text.as_bytes())?,
    }
    out.flush()
}

/// Prints a line, like [`print()`].
///
/// # Errors
/// As for [`print()`].
pub fn print_line(text: &str) -> io::Result<()> {
    print(&format!("{text}\n"))
}

/// Prints JSON, or cells that are already escaped, and a line break. On a terminal, control
/// characters are written as JSON escapes.
///
/// # Errors
/// As for [`print()`].
pub fn print_json_line(json: &str) -> io::Result<()> {
    let mut out = Stdout::new();
    out.write_json(json)?;
    out.write_all(b"\n")?;
    out.flush()
}

impl Stdout {
    /// Locks standard output until the value is dropped.
    #[expect(
        clippy::new_without_default,
        reason = "it takes the lock of the process"
    )]
    pub fn new() -> Self {
        Self {
            out: BufWriter::with_capacity(64 * 1024, io::stdout().lock()),
            is_closed: false,
            is_terminal: io::stdout().is_terminal(),
        }
    }
}

impl<W: Write> Stdout<W> {
    /// Creates an output to `out`, which is not a terminal.
    pub fn to(out: W) -> Self {
        Self {
            out,
            is_closed: false,
            is_terminal: false,
        }
    }

    #[cfg(test)]
    fn on_terminal(mut self) -> Self {
        self.is_terminal = true;
        self
    }

    /// The underlying writer.
    pub fn get_ref(&self) -> &W {
        &self.out
    }

    /// Whether the output is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Whether the reader has closed the output. Further output has no reader.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Writes JSON. On a terminal, control characters are written as JSON escapes.
    ///
    /// # Errors
    /// If the output cannot be written.
    pub fn write_json(&mut self, json: &str) -> io::Result<()> {
        match self.is_terminal {
            true => self.write_all(visible_json(json).as_bytes()),
            false => self.write_all(json.as_bytes()),
        }
    }

    /// Writes, unless the reader has closed the output. It then returns `dropped`, as if it had
    /// written.
    fn write_unless_closed<T>(
        &mut self,
        dropped: T,
        write: impl FnOnce(&mut W) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_closed {
            return Ok(dropped);
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(dropped)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::new(error.kind(), StdoutError(error))),
            written => written,
        }
    }
}

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_unless_closed((), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_departed_reader_ends_writing_and_other_errors_are_reported() {
        let mut left = Stdout::to(Broken(ErrorKind::BrokenPipe));
        assert!(left.write_all(b"all").is_ok());
        assert!(left.flush().is_ok());
        assert!(left.is_closed());
        let mut full = Stdout::to(Broken(ErrorKind::StorageFull));
        let error = full.write_all(b"all").expect_err("there is no room");
        assert!(error.to_string().contains("standard output"), "{error}");
        assert!(!full.is_closed());
    }

    #[test]
    fn completed_work_is_reported_before_a_write_error() {
        let mut full = Stdout::to(Broken(ErrorKind::StorageFull));
        let error = full
            .write_all(b"all")
            .after_done(|| "the event was published".to_owned())
            .expect_err("there is no room");
        let text = format!("{error:#}");
        assert!(
            text.starts_with("the event was published, but it cannot be shown"),
            "{text}"
        );
    }

    #[test]
    fn json_on_a_terminal_steers_nothing_and_stays_whole_elsewhere() {
        let json = "{\"a\":\"\u{9b}\u{202e}\"}\n";
        let mut terminal = Stdout::to(Vec::new()).on_terminal();
        terminal.write_json(json).unwrap();
        assert_eq!(terminal.out, b"{\"a\":\"\\u009b\\u202e\"}\n");
        let mut pipe = Stdout::to(Vec::new());
        pipe.write_json(json).unwrap();
        assert_eq!(pipe.out, json.as_bytes());
    }
}
