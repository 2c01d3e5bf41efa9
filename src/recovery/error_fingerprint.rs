//! The common pattern of similar error messages: the text without the parts that differ from record
//! to record.
//!
//! Pure. It only groups failures for people, and decides nothing. One pass over the text, without
//! regular expressions: it is called for each dead letter of a topic.

/// The most characters of a pattern.
const PATTERN_CHARS_MAX: usize = 160;

/// A word of at least this many hexadecimal digits counts as a number. Shorter ones may be words.
const HEX_DIGITS_MIN: usize = 8;

/// The message with identifiers and numbers replaced, so that messages of one cause are equal.
///
/// UUIDs become `<uuid>`, long hexadecimal numbers `<hex>`, digits `<n>`. White space is folded,
/// and a long message is cut.
///
/// Only for people: two causes may have one pattern, and one cause several. Do not decide by it.
///
/// # Examples
/// ```
/// use evenkeel::recovery::error_fingerprint;
///
/// assert_eq!(error_fingerprint("no article-17 within 250ms"), "no article-<n> within <n>ms");
/// let order = "order 018f6c1e-7d3a-7c11-9b0a-3f2d5e6a7b8c is closed";
/// assert_eq!(error_fingerprint(order), "order <uuid> is closed");
/// ```
pub fn error_fingerprint(message: &str) -> String {
    let mut pattern = String::new();
    let mut rest = message.trim();
    while let Some(first) = rest.chars().next() {
        if pattern.len() > PATTERN_CHARS_MAX * 4 {
            break;
        }
        let (shown, length) = if first.is_whitespace() {
            (" ", rest.len() - rest.trim_start().len())
        } else if let Some(length) = uuid(rest) {
            ("<uuid>", length)
        } else if let Some(length) = hexadecimal(rest) {
            ("<hex>", length)
        } else if first.is_ascii_alphanumeric() {
            let length = word_length(rest);
            replace_digits(&rest[..length], &mut pattern);
            ("", length)
        } else {
            (&rest[..first.len_utf8()], first.len_utf8())
        };
        pattern.push_str(shown);
        rest = &rest[length..];
    }
    truncate(pattern)
}

/// The length of the letters and digits at the beginning.
fn word_length(text: &str) -> usize {
    let end = text.bytes().position(|byte| !byte.is_ascii_alphanumeric());
    end.unwrap_or(text.len())
}

/// The length of a UUID at the beginning.
fn uuid(text: &str) -> Option<usize> {
    const LENGTH: usize = 36;
    let bytes = text.as_bytes().get(..LENGTH)?;
    let fits = bytes.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    let ends = text
        .as_bytes()
        .get(LENGTH)
        .is_none_or(|next| !next.is_ascii_alphanumeric());
    (fits && ends).then_some(LENGTH)
}

/// The length of a hexadecimal number at the beginning: with a prefix, or long and with both digits
/// and letters.
fn hexadecimal(text: &str) -> Option<usize> {
    let length = word_length(text);
    let word = &text.as_bytes()[..length];
    let is_hex = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    if let Some(digits) = word.strip_prefix(b"0x") {
        return is_hex(digits).then_some(length);
    }
    let mixed = word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic);
    (length >= HEX_DIGITS_MIN && mixed && is_hex(word)).then_some(length)
}

/// Appends a word with each run of digits replaced.
fn replace_digits(word: &str, pattern: &mut String) {
    let mut in_number = false;
    for char in word.chars() {
        let digit = char.is_ascii_digit();
        if !digit {
            pattern.push(char);
        } else if !in_number {
            pattern.push_str("<n>");
        }
        in_number = digit;
    }
}

/// Cuts a pattern at [`PATTERN_CHARS_MAX`] characters, and marks the cut.
fn truncate(mut pattern: String) -> String {
    if let Some((end, _)) = pattern.char_indices().nth(PATTERN_CHARS_MAX) {
        pattern.truncate(end);
        pattern.push('…');
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_that_differ_between_records_are_replaced() {
        let check =
            |message: &str, expected: &str| assert_eq!(error_fingerprint(message), expected);
        check("", "");
        check("no total", "no total");
        check("order 17 of 4711", "order <n> of <n>");
        check("article-001 is gone", "article-<n> is gone");
        check("took 1.5s", "took <n>.<n>s");
        check("id 0190aaf0-0000-7000-8000-00000000002a!", "id <uuid>!");
        check("0190AAF0-0000-7000-8000-00000000002A", "<uuid>");
        check("at 0xdeadBEEF, at 0x", "at <hex>, at <n>x");
        check("trace 4bf92f3577b34da6a3ce929d0e0e4736", "trace <hex>");
        check("deadbeef cafe 12345678", "deadbeef cafe <n>");
        check("two\n\t lines  ", "two lines");
        check("größer als 5 €", "größer als <n> €");
    }

    #[test]
    fn a_long_message_is_cut() {
        let pattern = error_fingerprint(&"é".repeat(10_000));
        assert_eq!(pattern.chars().count(), PATTERN_CHARS_MAX + 1);
        assert!(pattern.ends_with('…'));
    }

    proptest! {
        #[test]
        fn any_message_has_a_short_pattern_without_digits(message in "\\PC*") {
            let pattern = error_fingerprint(&message);
            prop_assert!(pattern.chars().count() <= PATTERN_CHARS_MAX + 1);
            prop_assert!(!pattern.bytes().any(|byte| byte.is_ascii_digit()));
        }
    }
}
