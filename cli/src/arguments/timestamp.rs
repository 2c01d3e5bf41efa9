//! Parses times as people and programs write them. Pure.
//!
//! One grammar for `--since`, `--until`, `--before`, `--from` and `--to`: milliseconds since the
//! epoch, RFC 3339, or an age. An age is relative to the call, so two flags of one command may
//! differ by the milliseconds between their parsing.

use jiff::Timestamp;

/// Milliseconds since the epoch, a date and time with its zone, or an age such as `-1h`. Each may
/// have the `@` of positions in front.
pub(crate) fn time_ms(text: &str, now: Timestamp) -> Result<i64, String> {
    let text = text.strip_prefix('@').unwrap_or(text);
    if let Ok(ms) = text.parse::<i64>()
        && ms >= 0
    {
        return Ok(ms);
    }
    if let Some(age) = text.strip_prefix('-')
        && let Ok(age) = age.parse::<jiff::Span>()
        && let Ok(age) = age.to_duration(jiff::SpanRelativeTo::days_are_24_hours())
        && let Ok(then) = now.checked_sub(age)
    {
        return Ok(then.as_millisecond());
    }
    text.parse::<Timestamp>()
        .map(Timestamp::as_millisecond)
        .map_err(|_| {
            "write milliseconds since the epoch, 2026-05-01T12:00:00Z, or an age such as -1h"
                .to_owned()
        })
}

/// [`time_ms`] as an argument.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    let ms = time_ms(text, Timestamp::now())?;
    Timestamp::from_millisecond(ms).map_err(|_| "this time is out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_milliseconds_a_date_or_an_age() {
        let now = Timestamp::from_millisecond(10_000_000).unwrap();
        let check = |text, expected| assert_eq!(time_ms(text, now).ok(), expected, "{text}");
        check("5", Some(5));
        check("1970-01-01T00:00:01Z", Some(1_000));
        check("-1h", Some(10_000_000 - 3_600_000));
        check("-1d 1h", Some(10_000_000 - 25 * 3_600_000));
        check("@-1h", Some(10_000_000 - 3_600_000));
        check("@1970-01-01T00:00:01Z", Some(1_000));
        check("@5", Some(5));
        check("-5", None);
        check("@@5", None);
        check("yesterday", None);
        assert!(parse("9223372036854775807").is_err());
    }
}
