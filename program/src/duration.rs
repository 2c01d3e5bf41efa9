//! Durations on the command line and in files: one grammar for all flags.
//!
//! The grammar is that of jiff's friendly format and of ISO 8601. Zero is refused: where it would
//! mean "never" or "no limit", the flag is left out.

use jiff::{Span, SpanRelativeTo};
use std::time::Duration;

/// Parses a duration with units, such as `90s`, `500ms`, `1h30m`, `1m 30s` or `45d`. A day has 24
/// hours, a week seven days.
///
/// ```
/// use evenkeel_program::duration::parse_duration;
/// use std::time::Duration;
///
/// assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
/// assert!(parse_duration("90").is_err(), "a unit is required");
/// ```
///
/// # Errors
/// If a unit is missing or unknown, for months and years, whose length varies, and if the duration
/// is not above zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = text
        .parse()
        .and_then(|span: Span| span.to_duration(SpanRelativeTo::days_are_24_hours()))
        .map_err(|reason| format!("not a time such as 10s, 500ms or 45d: {reason}"))?;
    nonzero(Duration::try_from(duration).unwrap_or_default())
}

/// Parses a duration like [`parse_duration`], or a bare number of seconds.
///
/// Only for flags that have always accepted a bare number. A new flag uses [`parse_duration`].
///
/// ```
/// use evenkeel_program::duration::parse_duration_or_seconds;
/// use std::time::Duration;
///
/// assert_eq!(parse_duration_or_seconds("90"), Ok(Duration::from_secs(90)));
/// assert_eq!(parse_duration_or_seconds("90s"), Ok(Duration::from_secs(90)));
/// ```
///
/// # Errors
/// As for [`parse_duration`].
pub fn parse_duration_or_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => nonzero(Duration::from_secs(seconds)),
        Err(_) => parse_duration(text),
    }
}

fn nonzero(duration: Duration) -> Result<Duration, String> {
    match duration.is_zero() {
        true => Err("must be more than zero".to_owned()),
        false => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_units_and_is_above_zero() {
        let check = |text: &str, expected: Option<u64>| {
            let read = parse_duration(text).ok();
            assert_eq!(read, expected.map(Duration::from_millis), "{text}");
            // A text with a unit has the same meaning if bare numbers are allowed.
            assert!(
                expected.is_none() || parse_duration_or_seconds(text).ok() == read,
                "{text}"
            );
        };
        check("500ms", Some(500));
        check("60s", Some(60_000));
        check("90s", Some(90_000));
        check("2m", Some(120_000));
        check("5m", Some(300_000));
        check("2h", Some(2 * 3_600_000));
        check("1h30m", Some(5_400_000));
        check("1h 30m", Some(5_400_000));
        check("1m 30s", Some(90_000));
        check("45d", Some(45 * 24 * 3_600_000));
        check("12w 12h", Some((12 * 7 * 24 + 12) * 3_600_000));
        let refused = [
            "", "s", "60", "0s", "-1s", "-5s", "soon", "5 apples", "1 month", "1y",
        ];
        for text in refused {
            check(text, None);
        }
    }

    #[test]
    fn a_bare_number_is_seconds_where_that_is_allowed() {
        let check = |text: &str, expected: Option<u64>| {
            let read = parse_duration_or_seconds(text).ok();
            assert_eq!(read, expected.map(Duration::from_secs), "{text}");
        };
        check("10", Some(10));
        check("5", Some(5));
        check("0", None);
        check("-1", None);
        check("1.5", None);
        check("99999999999999999999", None);
        check("99999999999999999999m", None);
    }
}
