//! Lines of a file or of standard input.

use anyhow::Context;
use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use tokio::sync::mpsc;

/// The longest line that is read; a record of that size is refused by any broker anyway.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Lines that are read ahead.
const AHEAD_LINES: usize = 64;

/// A line and its number, from 1.
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) content: Result<Vec<u8>, String>,
}

/// Opens a file, or standard input for none and `-`.
pub(crate) fn open(path: Option<PathBuf>) -> anyhow::Result<Box<dyn BufRead + Send>> {
    match path.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            Ok(Box::new(BufReader::new(file)))
        }
        None => {
            if io::stdin().is_terminal() {
                anstream::eprintln!("evenkeel: reading one JSON object a line; end with Ctrl-D");
            }
            Ok(Box::new(BufReader::new(io::stdin())))
        }
    }
}

/// Reads lines on a thread of its own, because a read from a terminal or a pipe cannot be taken back. Empty lines are
/// passed over; the thread ends with the input, or when nobody listens.
pub(crate) fn read(mut input: Box<dyn BufRead + Send>) -> mpsc::Receiver<io::Result<Line>> {
    let (sender, receiver) = mpsc::channel(AHEAD_LINES);
    std::thread::spawn(move || {
        let mut number = 0;
        loop {
            number += 1;
            let next = read_line(&mut input).transpose();
            let Some(next) = next else { return };
            let failed = next.is_err();
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

/// The next line without its end, or why it is none; nothing at the end of the input.
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

    #[test]
    fn a_line_without_end_is_cut_and_the_next_is_read() {
        let mut text = vec![b'x'; LINE_BYTES_MAX as usize + 2];
        text.extend_from_slice(b"\nnext\n");
        let lines = all(text);
        assert!(lines[0].1.is_err());
        assert_eq!(lines[1], (2, Ok("next".to_owned())));
    }
}
