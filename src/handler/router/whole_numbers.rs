//! Integers written with a point or an exponent, such as `2.0` and `1e3`.
//!
//! JSON Schema accepts them as integers, and some languages write them so; `serde` does not accept
//! them. Other numbers are not changed.
//!
//! Used only after a payload did not match its type, so that the usual event pays nothing. Works on
//! the bytes: a parsed number would lose digits. Strings are skipped; the input is valid JSON.

/// Digits of the largest number that is rewritten: those of a `u128`.
const DIGITS_MAX: usize = 39;

/// Rewrites such numbers as integers; `None` if there is none.
pub(super) fn with_plain_integers(json: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(byte) = json.get(at) {
        let end = match byte {
            b'"' => at + text(&json[at..]),
            b'-' | b'0'..=b'9' => {
                let end = at
                    + json[at..]
                        .iter()
                        .take_while(|byte| is_number_byte(**byte))
                        .count();
                if let Some(whole) = as_integer(&json[at..end]) {
                    out.extend_from_slice(&json[copied..at]);
                    out.extend_from_slice(whole.as_bytes());
                    copied = end;
                }
                end
            }
            _ => at + 1,
        };
        at = end;
    }
    (copied > 0).then(|| {
        out.extend_from_slice(&json[copied..]);
        out
    })
}

/// The length of the string that begins here, with its quotes.
fn text(json: &[u8]) -> usize {
    let mut is_escaped = false;
    for (at, byte) in json.iter().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    json.len()
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

/// Writes a number without point and exponent; `None` if it has neither, or is no integer.
fn as_integer(number: &[u8]) -> Option<String> {
    let number = std::str::from_utf8(number).ok()?;
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None if number.contains('.') => (number, 0),
        None => return None,
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{integer}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let dropped = i64::try_from(digits.len() - significant.len()).ok()?;
    let places = exponent
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(dropped)?;
    let zeros = usize::try_from(places).ok()?;
    (significant.len().checked_add(zeros)? <= DIGITS_MAX)
        .then(|| format!("{sign}{significant}{}", "0".repeat(zeros)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn whole_numbers_are_written_as_integers_and_nothing_else_changes() {
        let check = |json: &str, expected: Option<&str>| {
            let found = with_plain_integers(json.as_bytes());
            let found = found.map(|bytes| String::from_utf8(bytes).expect("the bytes are UTF-8"));
            assert_eq!(found.as_deref(), expected, "{json}");
        };
        check(
            r#"{"a":2.0,"b":[1e3,-10.50e1]}"#,
            Some(r#"{"a":2,"b":[1000,-105]}"#),
        );
        check("2.0", Some("2"));
        check("-0.0", Some("0"));
        check("0e9999999999", Some("0"));
        check("100e-2", Some("1"));
        check("1E+2", Some("100"));
        check(
            "340282366920938463463374607431768211455.0",
            Some("340282366920938463463374607431768211455"),
        );
        for unchanged in [
            "2",
            "2.5",
            "1e-1",
            "1e40",
            "1e99999999999999999999",
            "105e-2",
            r#""2.0""#,
        ] {
            check(unchanged, None);
        }
        check(
            r#"{"2.0":"\"1e3","c":3.0}"#,
            Some(r#"{"2.0":"\"1e3","c":3}"#),
        );
        check(r#"["\\",4.0]"#, Some(r#"["\\",4]"#));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = with_plain_integers(&bytes);
        }

        #[test]
        fn an_integer_is_found_in_every_notation(number: i64, zeros in 0_usize..9) {
            let json = format!("{number}.{}", "0".repeat(zeros + 1));
            let found = with_plain_integers(json.as_bytes()).expect("whole");
            let found = String::from_utf8(found).expect("the bytes are UTF-8");
            prop_assert_eq!(found, number.to_string());
            let json = format!("{number}{}e-{zeros}", "0".repeat(zeros));
            let found = with_plain_integers(json.as_bytes()).expect("whole");
            let found = String::from_utf8(found).expect("the bytes are UTF-8");
            prop_assert_eq!(found, number.to_string());
        }
    }
}
