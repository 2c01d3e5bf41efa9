//! Reads lines of a file or of standard input, with bounds on the length of a line and on the
//! number of lines read ahead. A line that is too long, or text in UTF-16, is an error of that
//! line, not of the input.

use crate::output::stderr::say;
use anyhow::Context;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// The longest line that is read. Every broker rejects a record of this size.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// The byte order mark that some programs write before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The byte order marks of UTF-16 text.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// Number of lines that are read ahead.
const AHEAD_LINES: usize = 64;

/// A line and its number, from 1.
pub(crate) struct Line {
    /// The number of the line, from 1. Empty lines are counted, too.
    pub(crate) number: u64,
    /// The bytes without the line end, or why they cannot be used.
    pub(crate) content: Result<Vec<u8>, String>,
}

/// Opens a file. `None` and `-` stand for standard input. On a terminal, prints how to end the
/// input.
pub(crate) fn open(path: Option<PathBuf>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            Ok(Box::new(BufReader::new(file)))
        }
        None => {
            if io::stdin().is_terminal() {
                say!("reading one JSON object per line from standard input; end with Ctrl-D");
            }
            Ok(Box::new(BufReader::new(io::stdin())))
        }
    }
}

/// Reads lines on a thread of its own, because a read from a terminal or a pipe cannot be
/// cancelled. Skips empty lines. The thread ends at the end of the input, or when the receiver is
/// dropped.
pub(crate) fn read(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(AHEAD_LINES);
    std::thread::spawn(move || {
        let mut number = 0;
        loop {
            number += 1;
            let next = read_line(&mut input).transpose();
            let Some(next) = next else { return };
            let failed = next.is_err();
            let next = match number {
                1 => next.map(|first| first.and_then(without_mark)),
                _ => next,
            };
            let line = next.map(|content| Line { number, content });
            let blank =
                matches!(&line, Ok(Line { content: Ok(text), .. }) if text.trim_ascii().is_empty());
            if (!blank && sender.blocking_send(line).is_err()) || failed {
                return;
            }
        }
    });
    receiver
}

/// The first line without its byte order mark.
fn without_mark(mut line: Vec<u8>) -> Result<Vec<u8>, String> {
    if UTF16_MARKS.iter().any(|mark| line.starts_with(mark)) {
        return Err("the text is UTF-16; save it as UTF-8".to_owned());
    }
    if line.starts_with(BYTE_ORDER_MARK) {
        line.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(line)
}

/// The next line without its line end, or its error. `None` at the end of the input.
#[allow(clippy::type_complexity)]
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    let read = input
        .by_ref()
        .take(LINE_BYTES_MAX + 1)
        .read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if line.len() as u64 > LINE_BYTES_MAX {
        input.skip_until(b'\n')?;
        return Ok(Some(Err(format!("longer than {LINE_BYTES_MAX} bytes"))));
    }
    Ok(Some(Ok(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: Vec<u8>) -> Vec<(u64, Result<String, String>)> {
        let mut lines = read(Box::new(io::Cursor::new(text)));
        std::iter::from_fn(|| lines.blocking_recv())
            .map(|line| {
                let Line { number, content } = line.unwrap();
                (
                    number,
                    content.map(|bytes| String::from_utf8(bytes).unwrap()),
                )
            })
            .collect()
    }

    #[test]
    fn lines_keep_their_number_and_the_last_needs_no_end() {
        let expected = [(1, Ok("a".to_owned())), (4, Ok("b".to_owned()))];
        assert_eq!(all(b"a\n\n \nb".to_vec()), expected);
        assert_eq!(all(Vec::new()), []);
    }

    /// A mark of UTF-16 is rejected by name.
    #[test]
    fn byte_order_mark_is_stripped_from_the_first_line_only() {
        let expected = [(1, Ok("a".to_owned())), (2, Ok("\u{feff}b".to_owned()))];
        assert_eq!(all(b"\xef\xbb\xbfa\n\xef\xbb\xbfb".to_vec()), expected);
        for mark in UTF16_MARKS {
            let lines = all([mark, b"a\0"].concat());
            assert!(
                lines[0]
                    .1
                    .as_ref()
                    .is_err_and(|reason| reason.contains("UTF-16"))
            );
        }
    }

    #[test]
    fn an_overlong_line_is_rejected_and_the_next_is_read() {
        let mut text = vec![b'x'; LINE_BYTES_MAX as usize + 2];
        text.extend_from_slice(b"\nnext\n");
        let lines = all(text);
        assert!(lines[0].1.is_err());
        assert_eq!(lines[1], (2, Ok("next".to_owned())));
    }
}
