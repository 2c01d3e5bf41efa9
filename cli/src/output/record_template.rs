//! kcat's format tokens. Pure.

use evenkeel::event::HeadersIter;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::telemetry::{visible, visible_lines};
use std::io::Write;

/// A parsed format such as `%t %p %o %k %s\n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format(Vec<Token>);

/// A part of a format: literal bytes, or a field of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// Bytes that are written as they are.
    Literal(Vec<u8>),
    /// `%t`
    Topic,
    /// `%p`
    Partition,
    /// `%o`
    Offset,
    /// `%T`: milliseconds since the epoch, or -1.
    Timestamp,
    /// `%h`: names and values, separated by commas.
    Headers,
    /// `%k`
    Key,
    /// `%K`: bytes of the key, or -1 for none.
    KeyLength,
    /// `%s` and `%v`
    Value,
    /// `%S`: bytes of the value, or -1 for none.
    ValueLength,
    /// Length of the value as a big-endian 32-bit integer.
    ValueLengthBinary,
}

impl Format {
    /// The value and a line end.
    pub(crate) fn value_lines() -> Self {
        Self(vec![Token::Value, Token::Literal(b"\n".to_vec())])
    }

    /// Parses kcat's tokens and escapes. `%v` is rpk's name of the value; `%%` is a percent sign.
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
                (b'%', Some(name)) => token(*name)?,
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

    /// Appends the record. With `is_shown`, control characters in its key, value and headers are
    /// escaped for a terminal.
    pub(crate) fn render(&self, record: &LogRecord, is_shown: bool, out: &mut Vec<u8>) {
        for token in &self.0 {
            match token {
                Token::Literal(bytes) => out.extend_from_slice(bytes),
                Token::Topic => out.extend_from_slice(record.topic.as_bytes()),
                Token::Partition => number(out, record.partition),
                Token::Offset => number(out, record.offset),
                Token::Timestamp => number(out, record.timestamp_ms.unwrap_or(-1)),
                Token::Headers => headers(record.headers.iter(), is_shown, out),
                Token::Key => one_line(record.key.as_deref().unwrap_or_default(), is_shown, out),
                Token::Value => lines(record.value.as_deref().unwrap_or_default(), is_shown, out),
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

/// The field of a token's name.
fn token(name: u8) -> Result<Token, String> {
    Ok(match name {
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
                "unknown token %{}; the tokens are %t %p %o %T %h %k %K %s (or %v) %S %R and %%",
                char::from(other).escape_default()
            ));
        }
    })
}

/// The byte of an escape. Its backslash was consumed already.
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

/// The length in bytes, or -1 for none, as kcat has it.
fn length(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(-1, |bytes| bytes.len() as i64)
}

/// Appends a number in decimal.
fn number(out: &mut Vec<u8>, number: impl std::fmt::Display) {
    // Writing to a vector cannot fail.
    drop(write!(out, "{number}"));
}

/// Headers as kcat prints them: `NAME=VALUE`, separated by commas. A null value is `NULL`.
fn headers(headers: HeadersIter<'_>, is_shown: bool, out: &mut Vec<u8>) {
    for (index, (name, value)) in headers.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        one_line(name, is_shown, out);
        out.push(b'=');
        one_line(value.unwrap_or(b"NULL"), is_shown, out);
    }
}

/// Appends bytes. With `is_shown`, line breaks are escaped as well as control characters.
fn one_line(bytes: &[u8], is_shown: bool, out: &mut Vec<u8>) {
    match is_shown {
        true => out.extend_from_slice(visible(&String::from_utf8_lossy(bytes)).as_bytes()),
        false => out.extend_from_slice(bytes),
    }
}

/// Appends bytes. With `is_shown`, control characters are escaped, and line breaks stay.
fn lines(bytes: &[u8], is_shown: bool, out: &mut Vec<u8>) {
    match is_shown {
        true => out.extend_from_slice(visible_lines(&String::from_utf8_lossy(bytes)).as_bytes()),
        false => out.extend_from_slice(bytes),
    }
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

    fn rendered(format: &str, record: &LogRecord, is_shown: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(format)
            .unwrap()
            .render(record, is_shown, &mut out);
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
    fn a_record_cannot_steer_the_terminal() {
        assert_eq!(
            rendered(r"%s\x1b", &record(), true),
            b"va\\u{1b}[31mlue\x1b"
        );
        let mut evil = record();
        evil.key = Some("k\n\u{9b}2J".into());
        evil.value = Some("{\n\t\u{202e}\u{ff}".into());
        evil.headers.push("h\u{1b}", Some(b"a\nb"));
        let shown = rendered("%k|%s|%h", &evil, true);
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            "k\\n\\u{9b}2J|{\n\t\\u{202e}\u{ff}|ce_id=1,none=NULL,h\\u{1b}=a\\nb"
        );
    }
}
