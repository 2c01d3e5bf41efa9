//! Lines of an input with their numbers and where they end, read in bounded memory. Knows nothing of what they mean.

use std::io::{BufRead, BufReader, Read};
use tokio::sync::mpsc;

/// The longest line that is read; what is longer is passed by and reported. Brokers take records of 1 MB by default.
pub(super) const LINE_BYTES_MAX: usize = 512 * 1024;
/// Lines are handed on in runs of about this many bytes.
const RUN_BYTES: usize = 64 * 1024;
/// What some programs put before the first line of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// How many runs wait to be taken.
const RUNS_MAX: usize = 4;

/// A line of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Its number, from 1.
    pub(super) number: u64,
    /// Where in the input the next line begins, in bytes.
    pub(super) end_bytes: u64,
    /// Its bytes without the line break, or none where it was too long.
    pub(super) content: Option<Vec<u8>>,
}

/// Reads lines one by one.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
    end_bytes: u64,
}

impl<R: Read> Lines<R> {
    /// Lines of an input that stands behind line `number`, which ended at `end_bytes`; both 0 at the beginning.
    pub(super) fn after(reader: R, number: u64, end_bytes: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(RUN_BYTES, reader),
            number,
            end_bytes,
        }
    }

    /// The next line; none at the end. The last line needs no line break.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut content = Vec::new();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let mut length_bytes = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut content)? as u64;
        if length_bytes == 0 {
            return Ok(None);
        }
        let too_long = length_bytes == limit && !content.ends_with(b"\n");
        if too_long {
            length_bytes += self.pass_by_line()?;
        }
        if self.number == 0 && content.starts_with(BYTE_ORDER_MARK) {
            content.drain(..BYTE_ORDER_MARK.len());
        }
        self.number += 1;
        self.end_bytes += length_bytes;
        while content
            .last()
            .is_some_and(|byte| matches!(byte, b'\n' | b'\r'))
        {
            content.pop();
        }
        Ok(Some(Line {
            number: self.number,
            end_bytes: self.end_bytes,
            content: (!too_long).then_some(content),
        }))
    }

    /// Reads to behind the next line break without keeping anything; says how many bytes that was.
    fn pass_by_line(&mut self) -> std::io::Result<u64> {
        let mut passed_bytes = 0;
        loop {
            let buffer = self.reader.fill_buf()?;
            let line_break = buffer.iter().position(|byte| *byte == b'\n');
            let taken = line_break.map_or(buffer.len(), |position| position + 1);
            let at_end = buffer.is_empty();
            self.reader.consume(taken);
            passed_bytes += taken as u64;
            if at_end || line_break.is_some() {
                return Ok(passed_bytes);
            }
        }
    }

    /// Whether the next line can be had without waiting for input.
    fn is_next_buffered(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }
}

/// Reads on a thread of its own, because reading standard input cannot be interrupted, and hands on runs of lines. The
/// thread ends with the input, at the first error, or when the receiver is gone and the next run is there.
pub(super) fn read_on_thread<R: Read + Send + 'static>(
    mut lines: Lines<R>,
) -> mpsc::Receiver<std::io::Result<Vec<Line>>> {
    let (sender, receiver) = mpsc::channel(RUNS_MAX);
    std::thread::spawn(move || {
        loop {
            match next_run(&mut lines) {
                Ok(run) if run.is_empty() => return,
                result => {
                    let failed = result.is_err();
                    if sender.blocking_send(result).is_err() || failed {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

/// The lines that are there, one at least, empty only at the end: a slow input is handed on as it comes.
fn next_run<R: Read>(lines: &mut Lines<R>) -> std::io::Result<Vec<Line>> {
    let mut run = Vec::new();
    let mut run_bytes = 0;
    while let Some(line) = lines.next()? {
        run_bytes += line.content.as_ref().map_or(0, Vec::len);
        run.push(line);
        if run_bytes >= RUN_BYTES || !lines.is_next_buffered() {
            break;
        }
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::after(input, 0, 0);
        std::iter::from_fn(|| lines.next().expect("reads from memory")).collect()
    }

    #[test]
    fn lines_are_numbered_and_say_where_they_end_with_any_line_break_or_none() {
        let lines = read(b"\xef\xbb\xbfa\r\n\nbc");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.end_bytes, line.content.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                (1, 6, Some(b"a".as_slice())),
                (2, 7, Some(b"")),
                (3, 9, Some(b"bc")),
            ]
        );
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_by_and_the_next_one_is_read() {
        let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
        input.extend_from_slice(b"\nnext\n");
        let lines = read(&input);
        assert_eq!(lines[0].content, None);
        assert_eq!(lines[1].content.as_deref(), Some(b"next".as_slice()));
        assert_eq!(lines[1].number, 2);
        assert_eq!(lines[1].end_bytes, input.len() as u64);
    }

    #[test]
    fn the_longest_line_allowed_is_kept() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        input.push(b'\n');
        assert_eq!(
            read(&input)[0].content.as_ref().map(Vec::len),
            Some(LINE_BYTES_MAX)
        );
        assert_eq!(
            read(&input[..LINE_BYTES_MAX])[0]
                .content
                .as_ref()
                .map(Vec::len),
            Some(LINE_BYTES_MAX)
        );
    }

    #[test]
    fn reading_on_from_where_a_line_ended_gives_the_rest_with_its_numbers() {
        let input = b"first\nsecond\nthird\n";
        let whole = read(input);
        let mut rest = Lines::after(&input[whole[0].end_bytes as usize..], 1, whole[0].end_bytes);
        assert_eq!(rest.next().expect("reads"), Some(whole[1].clone()));
        assert_eq!(rest.next().expect("reads"), Some(whole[2].clone()));
    }

    #[tokio::test]
    async fn the_thread_hands_on_every_line_in_order() {
        let text: String = (1..=20_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        let input = std::io::Cursor::new(text.into_bytes());
        let mut runs = read_on_thread(Lines::after(input, 0, 0));
        let mut numbers = Vec::new();
        while let Some(run) = runs.recv().await {
            numbers.extend(run.expect("reads").iter().map(|line| line.number));
        }
        assert!(numbers.iter().copied().eq(1..=20_000));
    }
}
