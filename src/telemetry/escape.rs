//! Makes text from outside (keys, headers, error texts) safe for a terminal, a table's cell or a
//! line of a log.
//!
//! Pure. Nothing is dropped: a character that would control a terminal, break a line or be
//! invisible is written as an escape such as `\u{1b}`, so that two different texts also look
//! different.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character controls a terminal, breaks a line, or is invisible but changes the text
/// around it: control characters of both sets, bidirectional controls, zero-width characters, line
/// and paragraph separators, and tags.
///
/// Joiners (U+200C, U+200D) are not unsafe: scripts and emoji need them.
///
/// ```
/// use evenkeel::telemetry::is_unsafe;
///
/// assert!(is_unsafe('\u{1b}') && is_unsafe('\u{202e}'));
/// assert!(!is_unsafe('ä') && !is_unsafe('\u{200d}'));
/// ```
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Returns the text on one line, with every [unsafe](is_unsafe) character as an escape: `\n`, `\r`,
/// `\t` or `\u{…}`.
///
/// ```
/// use evenkeel::telemetry::visible;
///
/// assert_eq!(visible("o-1"), "o-1");
/// assert_eq!(visible("a\nb\u{1b}[2J\u{202e}"), r"a\nb\u{1b}[2J\u{202e}");
/// ```
pub fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Like [`visible`], for text with its own lines and tabs, such as a value that is shown whole.
///
/// ```
/// use evenkeel::telemetry::visible_lines;
///
/// assert_eq!(visible_lines("a:\n\tb\u{1b}[2J"), "a:\n\tb\\u{1b}[2J");
/// ```
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Returns a JSON text with every [unsafe](is_unsafe) character as a JSON escape, so that its value
/// is unchanged. Line breaks and tabs between its members are kept.
///
/// ```
/// use evenkeel::telemetry::visible_json;
///
/// let shown = visible_json("{\"name\": \"a\u{9b}b\"}");
/// assert_eq!(shown, r#"{"name": "a\u009bb"}"#);
/// ```
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_kept = |c: char| !is_unsafe(c) || matches!(c, '\n' | '\t');
    if json.chars().all(is_kept) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_kept(c) {
            shown.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\u{unit:04x}");
        }
    }
    Cow::Owned(shown)
}

/// Writes a line of [`visible`] text to standard error, in one piece.
///
/// If standard error cannot be written, because its reader is gone, the line is dropped: unlike
/// `eprintln!` this does not panic.
///
/// For the messages of a command that are not log lines.
pub fn say(line: &str) {
    let line = format!("{}\n", visible(line));
    drop(std::io::Write::write_all(
        &mut std::io::stderr().lock(),
        line.as_bytes(),
    ));
}

/// Escapes the unsafe characters that `is_kept` does not select. Copies only if there is one.
fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_unsafe(c) && !is_kept(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match is_kept(c) {
            true => shown.write_char(c),
            false => write_visible(&mut shown, c),
        };
    }
    Cow::Owned(shown)
}

/// Writes one character, escaped if it is [unsafe](is_unsafe).
fn write_visible(out: &mut impl Write, c: char) -> fmt::Result {
    match c {
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        c if is_unsafe(c) => write!(out, "\\u{{{:x}}}", u32::from(c)),
        c => out.write_char(c),
    }
}

/// Writes its input as [`visible`] text.
#[cfg(feature = "daemon")]
pub(super) struct VisibleWriter<W>(pub(super) W);

#[cfg(feature = "daemon")]
impl<W: Write> Write for VisibleWriter<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match text.chars().any(is_unsafe) {
            true => text.chars().try_for_each(|c| write_visible(&mut self.0, c)),
            false => self.0.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_hidden_characters_are_written_as_escapes() {
        let check = |text: &str, expected: &str| assert_eq!(visible(text), expected);
        check("grün 日本 👩\u{200d}👧", "grün 日本 👩\u{200d}👧");
        check("k1\nk2\tx\r", r"k1\nk2\tx\r");
        check("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}");
        check("\u{9b}31mred\u{7f}", r"\u{9b}31mred\u{7f}");
        check("\u{85}\u{2028}", r"\u{85}\u{2028}");
        for bidi in "\u{202a}\u{202e}\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}".chars() {
            check(
                &format!("a{bidi}b"),
                &format!(r"a\u{{{:x}}}b", u32::from(bidi)),
            );
        }
        check("\u{feff}\u{200b}\u{ad}", r"\u{feff}\u{200b}\u{ad}");
    }

    #[test]
    fn lines_of_a_whole_text_stay() {
        assert_eq!(visible_lines("{\n\t1\r\n}"), "{\n\t1\\r\n}");
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "a\u{9b}\u{202e}\u{e0041}\u{7f}é\n";
        let json = serde_json::to_string(value).unwrap();
        let shown = visible_json(&json);
        assert_eq!(
            shown,
            r#""a\u009b\u202e\udb40\udc41\u007f"#.to_owned() + "é\\n\""
        );
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
    }
}
