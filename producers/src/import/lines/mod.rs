//! Reads the lines of an input with their numbers and end positions, in bounded memory. Does not
//! parse them.
//!
//! A line ends at LF, CRLF or CR, also mixed. In CSV a quoted field may contain line breaks (RFC
//! 4180), so a row may span several lines. If the quotes violate RFC 4180, the start of the next
//! row is unknown. Such a row is reported as [`Content::Misquoted`]; reading on would be guessing.
//! A first line `sep=;`, as Excel writes and reads it, sets the field separator and is not a row.

use super::format::{COMMA, Format};
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Error, ErrorKind, Read};
use tokio::sync::mpsc;

/// The longest row that is read. A longer one is skipped and reported. By default, brokers accept
/// records of 1 MB.
pub(super) const LINE_BYTES_MAX: usize = 512 * 1024;
/// Approximate bytes of a run: rows are passed on in runs.
const RUN_BYTES: usize = 64 * 1024;
/// The byte order mark that some programs write before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The byte order marks of UTF-16 text.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// The prefix of Excel's first line in a CSV. The separator and a line break follow.
const SEPARATOR_LINE: &[u8] = b"sep=";
/// Maximum number of queued runs.
const RUNS_MAX: usize = 4;

/// A row of an input: one line, or several if a quoted CSV field contains line breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Number of its first line, from 1.
    pub(super) number: u64,
    /// Number of its last line.
    pub(super) last: u64,
    /// Position after the row.
    pub(super) end: At,
    /// Separator of its fields.
    pub(super) delimiter: u8,
    pub(super) content: Content,
}

/// A position between two rows of an input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct At {
    /// Number of the last line before it.
    pub line: u64,
    /// Number of bytes before it.
    pub bytes: u64,
    /// CRC-32 of these bytes.
    pub digest: u32,
}

/// The content of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// The bytes without the line break at the end.
    Bytes(Vec<u8>),
    /// More than [`LINE_BYTES_MAX`] bytes, which were skipped.
    TooLong,
    /// The quotes violate RFC 4180, so the row's end is unknown.
    Misquoted(&'static str),
}

/// Reads rows one by one.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    format: Format,
    /// The given separator, or that of the first line.
    delimiter: Option<u8>,
    /// The line, bytes and digest read so far.
    line: u64,
    bytes: u64,
    digest: Hasher,
}

/// State of the parser within a CSV row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote inside of a quoted field. It ends the field, unless another quote follows,
    /// which makes it an escaped quote.
    BehindQuote,
    /// After a blank that follows the closing quote of the field.
    AfterField,
}

impl Place {
    /// The state after `byte`, or the violation of RFC 4180.
    fn behind(self, byte: u8, delimiter: u8) -> Result<Self, &'static str> {
        Ok(match (self, byte) {
            (Self::Quoted, b'"') => Self::BehindQuote,
            (Self::Quoted, _) | (Self::BehindQuote | Self::FieldStart, b'"') => Self::Quoted,
            (_, byte) if byte == delimiter => Self::FieldStart,
            (Self::BehindQuote | Self::AfterField, b' ' | b'\t') => Self::AfterField,
            (Self::BehindQuote | Self::AfterField, _) => {
                return Err("text follows the closing quote of a field");
            }
            (Self::FieldStart, b' ' | b'\t') => Self::FieldStart,
            (Self::FieldStart, _) => Self::Unquoted,
            (Self::Unquoted, b'"') => return Err("a quote is inside of an unquoted field"),
            (Self::Unquoted, _) => Self::Unquoted,
        })
    }
}

impl<R: Read> Lines<R> {
    /// The rows of an input that is positioned at `at`. CSV fields are separated by `delimiter`,
    /// else by the separator of the first line, else by commas.
    pub(super) fn after(reader: R, format: Format, delimiter: Option<u8>, at: At) -> Self {
        Self {
            reader: BufReader::with_capacity(RUN_BYTES, reader),
            format,
            delimiter,
            line: at.line,
            bytes: at.bytes,
            digest: Hasher::new_with_initial_len(at.digest, at.bytes),
        }
    }

    /// The next row. `None` at the end. The last row needs no line break.
    ///
    /// # Errors
    /// If the input cannot be read, or is UTF-16.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Line>> {
        if self.bytes == 0 {
            self.skip_byte_order_mark()?;
            self.skip_separator_line()?;
        }
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let first = self.line + 1;
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
            last: self.line,
            end: At {
                line: self.line,
                bytes: self.bytes,
                digest: self.digest.clone().finalize(),
            },
            delimiter: self.delimiter(),
            content: match misquoted {
                Some(reason) => Content::Misquoted(reason),
                None if content.len() > LINE_BYTES_MAX => Content::TooLong,
                None => Content::Bytes(content),
            },
        }))
    }

    /// Takes buffered bytes up to the next line break. Returns whether the row ends there, or
    /// `None` at the end of the input.
    fn next_piece(
        &mut self,
        content: &mut Vec<u8>,
        place: &mut Place,
        misquoted: &mut Option<&'static str>,
    ) -> std::io::Result<Option<bool>> {
        let delimiter = self.delimiter();
        let buffer = self.reader.fill_buf()?;
        if buffer.is_empty() {
            // The last line has no line break.
            self.line += 1;
            return Ok(None);
        }
        let line_break = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let text = &buffer[..line_break.unwrap_or(buffer.len())];
        match self.format {
            Format::Jsonl => keep(content, text),
            Format::Csv => keep_fields(content, text, delimiter, place, misquoted),
        }
        let Some(at) = line_break else {
            let taken_bytes = text.len();
            self.take(taken_bytes);
            return Ok(Some(false));
        };
        let byte = buffer[at];
        self.take(at + 1);
        self.line += 1;
        let is_crlf = byte == b'\r' && self.take_line_feed()?;
        let goes_on = *place == Place::Quoted;
        if goes_on {
            let line_break: &[u8] = if is_crlf { b"\r\n" } else { &[byte] };
            keep(content, line_break);
        }
        Ok(Some(!goes_on))
    }

    fn delimiter(&self) -> u8 {
        self.delimiter.unwrap_or(COMMA)
    }

    /// Consumes buffered bytes.
    fn take(&mut self, bytes: usize) {
        self.digest.update(&self.reader.buffer()[..bytes]);
        self.reader.consume(bytes);
        self.bytes += bytes as u64;
    }

    /// Consumes the LF of a CRLF, if there is one.
    fn take_line_feed(&mut self) -> std::io::Result<bool> {
        let is_crlf = self.reader.fill_buf()?.first() == Some(&b'\n');
        if is_crlf {
            self.take(1);
        }
        Ok(is_crlf)
    }

    /// Consumes a first line of the form `sep=;`. Excel writes it at once, so it is buffered
    /// completely.
    fn skip_separator_line(&mut self) -> std::io::Result<()> {
        let begin = self.reader.fill_buf()?;
        let (Format::Csv, Some([separator, line_break @ (b'\n' | b'\r'), ..])) =
            (self.format, begin.strip_prefix(SEPARATOR_LINE))
        else {
            return Ok(());
        };
        let (separator, is_cr) = (*separator, *line_break == b'\r');
        self.take(SEPARATOR_LINE.len() + 2);
        self.line += 1;
        if is_cr {
            self.take_line_feed()?;
        }
        self.delimiter.get_or_insert(separator);
        Ok(())
    }

    fn skip_byte_order_mark(&mut self) -> std::io::Result<()> {
        let begin = self.reader.fill_buf()?;
        // UTF-16 text in Latin letters without a mark is recognised by its zero bytes.
        let is_utf16 = UTF16_MARKS.iter().any(|mark| begin.starts_with(mark))
            || matches!(
                begin,
                [0, 1..=255, 0, 1..=255, ..] | [1..=255, 0, 1..=255, 0, ..]
            );
        if is_utf16 {
            let reason = "the text is UTF-16; save it as UTF-8 (in Excel: CSV UTF-8)";
            return Err(Error::new(ErrorKind::InvalidData, reason));
        }
        if begin.starts_with(BYTE_ORDER_MARK) {
            self.take(BYTE_ORDER_MARK.len());
        }
        Ok(())
    }

    /// Whether another line is buffered, so that reading it does not wait for input.
    fn is_next_buffered(&self) -> bool {
        let mut buffered = self.reader.buffer().iter();
        buffered.any(|byte| matches!(byte, b'\n' | b'\r'))
    }
}

/// Keeps a piece of a CSV row without the blanks before its fields. They would hide an opening
/// quote.
fn keep_fields(
    content: &mut Vec<u8>,
    text: &[u8],
    delimiter: u8,
    place: &mut Place,
    misquoted: &mut Option<&'static str>,
) {
    for byte in text {
        match place.behind(*byte, delimiter) {
            Ok(behind) => *place = behind,
            Err(reason) => {
                *misquoted = misquoted.or(Some(reason));
                *place = Place::Unquoted;
                return;
            }
        }
        if *place != Place::FieldStart || *byte == delimiter {
            keep(content, std::slice::from_ref(byte));
        }
    }
}

/// Keeps the bytes of a row. Of a row that is too long, keeps only enough to detect that.
fn keep(content: &mut Vec<u8>, bytes: &[u8]) {
    let room = (LINE_BYTES_MAX + 1).saturating_sub(content.len());
    content.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// Reads on a thread of its own, because reading standard input cannot be interrupted, and passes
/// on runs of lines. The thread ends at the end of the input, at the first error, or at the next
/// run after the receiver was dropped.
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

/// The lines that are buffered, at least one. Empty only at the end. Lines of a slow input are
/// passed on as they arrive.
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
mod tests;
