//! Lines of an input with their numbers and where they end, read in bounded memory. Knows nothing of what they mean.
//!
//! A line ends at LF, CRLF or CR, mixed as they come. In CSV a quoted field may hold line breaks (RFC 4180): a row is then
//! several lines. Where quotes are not as RFC 4180 has them nothing tells where the next row begins, so the row is reported
//! as [`Content::Misquoted`] and reading on would be guessing.

use super::format::Format;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use tokio::sync::mpsc;

/// The longest row that is read; a longer one is skipped and reported. Brokers take records of 1 MB by default.
pub(super) const LINE_BYTES_MAX: usize = 512 * 1024;
/// Rows are handed on in runs of about this many bytes.
const RUN_BYTES: usize = 64 * 1024;
/// What some programs put before the first line of UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What programs put before UTF-16 text, in either byte order.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// How many runs wait to be taken.
const RUNS_MAX: usize = 4;

/// A row of an input: one line, or several where a quoted CSV field holds line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of its first line, from 1.
    pub(super) number: u64,
    /// The number of its last line.
    pub(super) last: u64,
    /// Where in the input the next row begins, in bytes.
    pub(super) end_bytes: u64,
    pub(super) content: Content,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Its bytes without the line break that ends it.
    Bytes(Vec<u8>),
    /// More than [`LINE_BYTES_MAX`] bytes, which were skipped.
    TooLong,
    /// Its quotes break RFC 4180, so its end is unknown.
    Misquoted(&'static str),
}

/// Reads rows one by one.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    format: Format,
    /// Lines read so far.
    number: u64,
    end_bytes: u64,
}

/// Where in a CSV row a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Unquoted,
    Quoted,
    /// Behind a quote inside of a quoted field: it ends the field, or the next quote makes it one of the field's own.
    BehindQuote,
}

impl Place {
    /// The place behind `byte`, or how the quotes break RFC 4180.
    fn behind(self, byte: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (Self::Quoted, b'"') => Self::BehindQuote,
            (Self::Quoted, _) | (Self::BehindQuote | Self::FieldStart, b'"') => Self::Quoted,
            (_, b',') => Self::FieldStart,
            (Self::BehindQuote, b' ' | b'\t') => Self::BehindQuote,
            (Self::BehindQuote, _) => return Err("text follows the closing quote of a field"),
            (Self::FieldStart, b' ' | b'\t') => Self::FieldStart,
            (Self::FieldStart, _) => Self::Unquoted,
            (Self::Unquoted, b'"') => return Err("a quote stands inside of an unquoted field"),
            (Self::Unquoted, _) => Self::Unquoted,
        })
    }
}

impl<R: Read> Lines<R> {
    /// Rows of an input that stands behind line `number`, which ended at `end_bytes`; both 0 at the beginning.
    pub(super) fn after(reader: R, format: Format, number: u64, end_bytes: u64) -> Self {
        Self {
            reader: BufReader::with_capacity(RUN_BYTES, reader),
            format,
            number,
            end_bytes,
        }
    }

    /// The next row; none at the end. The last one needs no line break.
    ///
    /// # Errors
    /// The input cannot be read, or is UTF-16.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Line>> {
        if self.end_bytes == 0 {
            self.skip_byte_order_mark()?;
        }
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first = self.number + 1;
        let mut content = Vec::new();
        let mut place = Place::FieldStart;
        let mut misquoted = None;
        while let Some(ended) = self.next_piece(&mut content, &mut place, &mut misquoted)? {
            if ended {
                break;
            }
        }
        if place == Place::Quoted {
            misquoted = misquoted.or(Some("a quote is opened and not closed"));
        }
        Ok(Some(Line {
            number: first,
            last: self.number,
            end_bytes: self.end_bytes,
            content: match misquoted {
                Some(reason) => Content::Misquoted(reason),
                None if content.len() > LINE_BYTES_MAX => Content::TooLong,
                None => Content::Bytes(content),
            },
        }))
    }

    /// Takes what is buffered up to the next line break. Tells whether the row ends there; none at the end of the input.
    fn next_piece(
        &mut self,
        content: &mut Vec<u8>,
        place: &mut Place,
        misquoted: &mut Option<&'static str>,
    ) -> std::io::Result<Option<bool>> {
        let buffer = self.reader.fill_buf()?;
        if buffer.is_empty() {
            // The last line has no line break.
            self.number += 1;
            return Ok(None);
        }
        let line_break = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let text = &buffer[..line_break.unwrap_or(buffer.len())];
        match self.format {
            Format::Jsonl => keep(content, text),
            Format::Csv => keep_fields(content, text, place, misquoted),
        }
        let Some(at) = line_break else {
            let taken_bytes = text.len();
            self.take(taken_bytes);
            return Ok(Some(false));
        };
        let byte = buffer[at];
        self.take(at + 1);
        self.number += 1;
        let is_crlf = byte == b'\r' && self.reader.fill_buf()?.first() == Some(&b'\n');
        if is_crlf {
            self.take(1);
        }
        let goes_on = *place == Place::Quoted;
        if goes_on {
            let line_break: &[u8] = if is_crlf { b"\r\n" } else { &[byte] };
            keep(content, line_break);
        }
        Ok(Some(!goes_on))
    }

    fn take(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.end_bytes += bytes as u64;
    }

    fn skip_byte_order_mark(&mut self) -> std::io::Result<()> {
        let begin = self.reader.fill_buf()?;
        if UTF16_MARKS.iter().any(|mark| begin.starts_with(mark)) {
            let reason = "the text is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)";
            return Err(Error::new(ErrorKind::InvalidData, reason));
        }
        if begin.starts_with(BYTE_ORDER_MARK) {
            self.take(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    /// Whether a further line can be had without waiting for input.
    fn is_next_buffered(&self) -> bool {
        let mut buffered = self.reader.buffer().iter();
        buffered.any(|byte| matches!(byte, b'\n' | b'\r'))
    }
}

/// Keeps a piece of a CSV row without the blanks in front of its fields, which would hide an opening quote.
fn keep_fields(
    content: &mut Vec<u8>,
    text: &[u8],
    place: &mut Place,
    misquoted: &mut Option<&'static str>,
) {
    for byte in text {
        match place.behind(*byte) {
            Ok(behind) => *place = behind,
            Err(reason) => {
                *misquoted = misquoted.or(Some(reason));
                *place = Place::Unquoted;
                return;
            }
        }
        if *place != Place::FieldStart || *byte == b',' {
            keep(content, std::slice::from_ref(byte));
        }
    }
}

/// Keeps bytes of a row, and of one that is too long only so many that it shows.
fn keep(content: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LINE_BYTES_MAX + 1).saturating_sub(content.len());
    content.extend_from_slice(&bytes[..bytes.len().min(room)]);
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
        if let Content::Bytes(content) = &line.content {
            run_bytes += content.len();
        }
        let is_last = matches!(line.content, Content::Misquoted(_));
        run.push(line);
        if is_last || run_bytes >= RUN_BYTES || !lines.is_next_buffered() {
            break;
        }
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, input: &[u8]) -> Vec<Line> {
        let mut lines = Lines::after(input, format, 0, 0);
        std::iter::from_fn(|| lines.next().expect("reads from memory")).collect()
    }

    fn bytes(content: &[u8]) -> Content {
        Content::Bytes(content.to_vec())
    }

    /// First line, last line and content of each row.
    fn check(input: &[u8], expected: &[(u64, u64, Content)]) {
        let rows: Vec<_> = read(Format::Csv, input)
            .into_iter()
            .map(|line| (line.number, line.last, line.content))
            .collect();
        assert_eq!(rows, expected, "{}", String::from_utf8_lossy(input));
    }

    #[test]
    fn lines_end_at_any_line_break_or_at_the_end() {
        let lines = read(Format::Jsonl, b"\xef\xbb\xbfa\r\n\nb\rc\r\rd\n\re");
        let found: Vec<_> = lines
            .iter()
            .map(|line| (line.number, line.end_bytes, line.content.clone()))
            .collect();
        let expected = [
            (1, 6, "a"),
            (2, 7, ""),
            (3, 9, "b"),
            (4, 11, "c"),
            (5, 12, ""),
            (6, 14, "d"),
            (7, 15, ""),
            (8, 16, "e"),
        ];
        assert_eq!(
            found,
            expected.map(|(number, end, text)| (number, end, bytes(text.as_bytes())))
        );
    }

    #[test]
    fn a_quoted_field_keeps_its_line_breaks_and_its_row_ends_behind_it() {
        check(
            b"a,\"b\nc\"\nd,e\n",
            &[(1, 2, bytes(b"a,\"b\nc\"")), (3, 3, bytes(b"d,e"))],
        );
        check(
            b"a,\"b\r\n\"\"c\rd\" \r\ne",
            &[(1, 3, bytes(b"a,\"b\r\n\"\"c\rd\" ")), (4, 4, bytes(b"e"))],
        );
        check(
            b" \"a,\n\",b\rc",
            &[(1, 2, bytes(b"\"a,\n\",b")), (3, 3, bytes(b"c"))],
        );
        check(b"\"\",\"\"\n", &[(1, 1, bytes(b"\"\",\"\""))]);
    }

    #[test]
    fn quotes_that_leave_the_end_of_a_row_unknown_are_reported() {
        let check = |input: &[u8], expected| {
            let content = read(Format::Csv, input)[0].content.clone();
            assert_eq!(content, Content::Misquoted(expected));
        };
        let unclosed = "a quote is opened and not closed";
        check(b"a,\"b\nc,d\n", unclosed);
        check(b"a,\"b\"\"", unclosed);
        check(b"\"", unclosed);
        check(b"\"a\"b\n", "text follows the closing quote of a field");
        check(b"a,b\"c\n", "a quote stands inside of an unquoted field");
        let long = [b"\"".as_slice(), &vec![b'x'; 2 * LINE_BYTES_MAX]].concat();
        check(&long, unclosed);
    }

    #[test]
    fn quotes_of_json_lines_span_no_lines() {
        let rows = read(Format::Jsonl, b"{\"a\n\"b\n");
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn a_row_is_the_same_whatever_the_reads_return() {
        /// Returns one byte a read.
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let taken = self.0.len().min(into.len()).min(1);
                into[..taken].copy_from_slice(&self.0[..taken]);
                self.0 = &self.0[taken..];
                Ok(taken)
            }
        }
        let input = b"a,\"b\r\nc\"\r\nd\re\n\r\nf\"\"\n";
        let mut slow = Lines::after(Slow(input), Format::Csv, 0, 0);
        let found: Vec<_> = std::iter::from_fn(|| slow.next().expect("reads")).collect();
        assert_eq!(found, read(Format::Csv, input));
    }

    #[test]
    fn utf16_is_refused_with_what_to_do() {
        for mark in UTF16_MARKS {
            let mut lines = Lines::after(mark, Format::Csv, 0, 0);
            let error = lines.next().expect_err("not UTF-8");
            assert!(error.to_string().contains("UTF-16"), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_read() {
        let mut input = vec![b'x'; 3 * LINE_BYTES_MAX];
        input.extend_from_slice(b"\nnext\n");
        let lines = read(Format::Csv, &input);
        assert_eq!(lines[0].content, Content::TooLong);
        assert_eq!(lines[1].content, bytes(b"next"));
        assert_eq!(lines[1].number, 2);
        assert_eq!(lines[1].end_bytes, input.len() as u64);
    }

    #[test]
    fn the_longest_line_allowed_is_kept() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        let longest = bytes(&input);
        assert_eq!(read(Format::Csv, &input)[0].content, longest);
        input.push(b'\n');
        assert_eq!(read(Format::Csv, &input)[0].content, longest);
    }

    #[test]
    fn reading_on_from_where_a_row_ended_gives_the_rest_with_its_numbers() {
        let input = b"first\r\n\"sec\nond\"\rthird\n";
        let whole = read(Format::Csv, input);
        for ended in 0..whole.len() - 1 {
            let Line {
                last, end_bytes, ..
            } = whole[ended];
            let rest = &input[end_bytes as usize..];
            let mut rest = Lines::after(rest, Format::Csv, last, end_bytes);
            for expected in &whole[ended + 1..] {
                assert_eq!(rest.next().expect("reads").as_ref(), Some(expected));
            }
        }
    }

    #[tokio::test]
    async fn the_thread_hands_on_every_line_in_order() {
        let text: String = (1..=20_000)
            .map(|number| format!("line {number}\n"))
            .collect();
        let input = std::io::Cursor::new(text.into_bytes());
        let mut runs = read_on_thread(Lines::after(input, Format::Csv, 0, 0));
        let mut numbers = Vec::new();
        while let Some(run) = runs.recv().await {
            numbers.extend(run.expect("reads").iter().map(|line| line.number));
        }
        assert!(numbers.iter().copied().eq(1..=20_000));
    }
}
