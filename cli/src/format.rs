//! kcat's format tokens, and what may go to a terminal. Pure.

use evenkeel::event::HeadersIter;
use evenkeel::kafka::reader::LogRecord;
use std::borrow::Cow;
use std::io::Write;

/// A parsed format such as `%t %p %o %k %s\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Token>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Headers,
    Key,
    KeyLength,
    Value,
    ValueLength,
    /// Length of the value as a big-endian 32-bit integer.
    ValueLengthBinary,
}

impl Format {
    /// The value and a line end.
    pub(crate) fn value_lines() -> Self {
        Self(vec![Token::Value, Token::Literal(b"\n".to_vec())])
    }

    /// Parses kcat's tokens and escapes; `%v` is rpk's name of the value and `%%` a percent sign.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.bytes().peekable();
        while let Some(byte) = rest.next() {
            let token = match (byte, rest.peek()) {
                (b'%', Some(b'%')) => {
                    rest.next();
                    literal.push(b'%');
                    continue;
                }
                (b'%', Some(letter)) => token(*letter)?,
                (b'%', None) => return Err("the format ends in %".to_owned()),
                (b'\\', _) => {
                    literal.push(escape(&mut rest)?);
                    continue;
                }
                _ => {
                    literal.push(byte);
                    continue;
                }
            };
            rest.next();
            if !literal.is_empty() {
                tokens.push(Token::Literal(std::mem::take(&mut literal)));
            }
            tokens.push(token);
        }
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal));
        }
        Ok(Self(tokens))
    }

    /// Appends the record. With `strip`, its key, value and headers lose what would steer a terminal.
    pub(crate) fn render(&self, record: &LogRecord, strip: bool, out: &mut Vec<u8>) {
        for token in &self.0 {
            match token {
                Token::Literal(bytes) => out.extend_from_slice(bytes),
                Token::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Token::Partition => number(out, record.partition),
                Token::Offset => number(out, record.offset),
                Token::Timestamp => number(out, record.timestamp_ms.unwrap_or(-1)),
                Token::Headers => headers(record.headers.iter(), strip, out),
                Token::Key => bytes(record.key.as_deref().unwrap_or_default(), strip, out),
                Token::Value => bytes(record.value.as_deref().unwrap_or_default(), strip, out),
                Token::KeyLength => number(out, length(record.key.as_deref())),
                Token::ValueLength => number(out, length(record.value.as_deref())),
                Token::ValueLengthBinary => {
                    let length = length(record.value.as_deref()) as i32;
                    out.extend_from_slice(&length.to_be_bytes());
                }
            }
        }
    }
}

fn token(letter: u8) -> Result<Token, String> {
    Ok(match letter {
        b't' => Token::Topic,
        b'p' => Token::Partition,
        b'o' => Token::Offset,
        b'T' => Token::Timestamp,
        b'h' => Token::Headers,
        b'k' => Token::Key,
        b'K' => Token::KeyLength,
        b's' | b'v' => Token::Value,
        b'S' => Token::ValueLength,
        b'R' => Token::ValueLengthBinary,
        other => {
            return Err(format!(
                "%{} means nothing; there are %t %p %o %T %h %k %K %s (or %v) %S %R and %%",
                char::from(other).escape_default()
            ));
        }
    })
}

/// The byte that an escape stands for, its backslash already taken.
fn escape(rest: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    match rest.next() {
        Some(b'n') => Ok(b'\n'),
        Some(b'r') => Ok(b'\r'),
        Some(b't') => Ok(b'\t'),
        Some(b'\\') => Ok(b'\\'),
        Some(b'x') => {
            let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => Ok((high * 16 + low) as u8),
                _ => Err(r"\x needs two hexadecimal digits".to_owned()),
            }
        }
        _ => Err(r"a backslash begins \n, \r, \t, \xNN or \\".to_owned()),
    }
}

fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

fn number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    // Writing to a vector cannot fail.
    drop(write!(out, "{number}"));
}

fn headers(headers: HeadersIter<'_>, strip: bool, out: &mut Vec<u8>) {
    for (index, (name, value)) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        bytes(name, strip, out);
        out.push(b'=');
        bytes(value.unwrap_or(b"NULL"), strip, out);
    }
}

fn bytes(bytes: &[u8], strip: bool, out: &mut Vec<u8>) {
    if strip {
        out.extend_from_slice(&without_control(bytes));
    } else {
        out.extend_from_slice(bytes);
    }
}

/// The text without terminal sequences and control characters other than white space.
pub(crate) fn printable(text: &str) -> String {
    String::from_utf8_lossy(&without_control(text.as_bytes())).into_owned()
}

/// [`printable`] text on one line: line breaks and tabs are written as `\n`, `\r` and `\t`.
pub(crate) fn one_line(text: &str) -> String {
    let breaks = [("\r", "\\r"), ("\n", "\\n"), ("\t", "\\t")];
    let escaped = breaks
        .iter()
        .fold(Cow::Borrowed(text), |text, (found, shown)| {
            match text.contains(found) {
                true => Cow::Owned(text.replace(found, shown)),
                false => text,
            }
        });
    printable(&escaped)
}

/// Characters that show nothing but change what stands around them: bidirectional controls, zero-width characters, line and
/// paragraph separators.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// Drops whole escape sequences, then control characters, of which UTF-8 has a second set (U+0080 to U+009F) that some
/// terminals obey, too.
pub(crate) fn without_control(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| *byte < b' ' || *byte >= 0x7f) {
        return Cow::Borrowed(bytes);
    }
    let mut visible = Vec::with_capacity(bytes.len());
    for chunk in anstream::adapter::StripBytes::new().strip_next(bytes) {
        visible.extend_from_slice(chunk);
    }
    let text = String::from_utf8_lossy(&visible);
    let kept = |c: &char| !(c.is_control() || is_invisible(*c)) || matches!(c, '\n' | '\t');
    Cow::Owned(text.chars().filter(kept).collect::<String>().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::event::Headers;
    use evenkeel::kafka::reader::TimestampKind;

    fn record() -> LogRecord {
        let mut headers = Headers::new();
        headers.push("ce_id", Some(b"1"));
        headers.push("none", None);
        LogRecord {
            topic: "orders".into(),
            partition: 3,
            offset: 42,
            timestamp_kind: TimestampKind::Create,
            timestamp_ms: Some(1000),
            key: Some(b"k".to_vec()),
            value: Some(b"va\x1b[31mlue".to_vec()),
            headers,
        }
    }

    fn rendered(format: &str, record: &LogRecord, strip: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(format)
            .unwrap()
            .render(record, strip, &mut out);
        out
    }

    #[test]
    fn every_token_writes_what_kcat_writes() {
        let check = |format: &str, expected: &[u8]| {
            assert_eq!(rendered(format, &record(), false), expected, "{format}");
        };
        check(
            r"%t [%p] at offset %o: key %k\n",
            b"orders [3] at offset 42: key k\n",
        );
        check("%T %K %S", b"1000 1 10");
        check("%h", b"ce_id=1,none=NULL");
        check("%s|%v", b"va\x1b[31mlue|va\x1b[31mlue");
        check("%R", b"\0\0\0\x0a");
        check(r"100%% \t\x41\\", b"100% \tA\\");
        check("", b"");
    }

    #[test]
    fn an_absent_key_and_value_have_length_minus_one() {
        let mut empty = record();
        (empty.key, empty.value) = (None, None);
        assert_eq!(rendered("%k,%s,%K,%S", &empty, false), b",,-1,-1");
        assert_eq!(rendered("%R", &empty, false), [0xff; 4]);
    }

    #[test]
    fn a_format_that_means_nothing_is_refused() {
        for format in ["%", "%q", r"\", r"\q", r"\x4", r"\xzz", "%é"] {
            assert!(Format::parse(format).is_err(), "{format}");
        }
    }

    #[test]
    fn a_value_cannot_steer_the_terminal() {
        assert_eq!(rendered(r"%s\x1b", &record(), true), b"value\x1b");
        let check = |input: &str, expected: &str| assert_eq!(printable(input), expected);
        check("plain\ttext\n", "plain\ttext\n");
        check("grün", "grün");
        check("a\u{7}b\u{8}c\r", "abc");
        check("\u{1b}]0;title\u{7}after", "after");
        check("\u{9b}31mred", "31mred");
        check("\u{7f}x", "x");
        check("\u{202e}evil\u{2028}\u{200b}", "evil");
    }
}
