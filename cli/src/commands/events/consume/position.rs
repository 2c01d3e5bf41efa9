//! Positions in the forms of kcat and rpk, and in human form: `beginning`, `-10`,
//! `@2026-05-01T12:00:00Z`, `s@1700000000000`. Pure.

use crate::arguments::timestamp::time_ms;
use evenkeel::kafka::reader::Start;
use std::str::FromStr;

/// A start or an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::commands) enum Position {
    /// Start at this position.
    Start(Start),
    /// Stop before this position.
    Until(Start),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse(text, jiff::Timestamp::now())
    }
}

/// Parses a position. Ages are relative to `now`.
fn parse(text: &str, now: jiff::Timestamp) -> Result<Position, String> {
    if let Some(time) = text.strip_prefix("e@") {
        return Ok(Position::Until(Start::Time(time_ms(time, now)?)));
    }
    if let Some(time) = text.strip_prefix("s@").or_else(|| text.strip_prefix('@')) {
        return Ok(Position::Start(Start::Time(time_ms(time, now)?)));
    }
    // Without an @, a number is an offset and never a time.
    if text.parse::<i64>().is_err()
        && let Ok(time) = time_ms(text, now)
    {
        return Ok(Position::Start(Start::Time(time)));
    }
    Ok(Position::Start(match text {
        "beginning" | "start" | "earliest" => Start::Beginning,
        "end" | "latest" => Start::End,
        "stored" => {
            return Err(
                "there is no stored offset without a group; see: evenkeel groups lag".to_owned(),
            );
        }
        _ => match text.parse::<i64>() {
            Ok(before_end) if before_end < 0 => Start::Last(before_end.saturating_neg()),
            Ok(offset) => Start::Offset(offset),
            Err(_) => {
                return Err(
                    "write beginning, end, an offset, -N, or a time as @TIME, -1h or \
                     2026-05-01T12:00:00Z; s@TIME is a start, e@TIME an end"
                        .to_owned(),
                );
            }
        },
    }))
}

/// Parses a position at either end of a range.
pub(in crate::commands) fn start(text: &str) -> Result<Start, String> {
    match text.parse()? {
        Position::Start(at) | Position::Until(at) => Ok(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_kcat_and_rpk_write_them() {
        let now = jiff::Timestamp::from_millisecond(10_000_000).unwrap();
        let check = |text, expected| assert_eq!(parse(text, now).ok(), expected, "{text}");
        let start = |at| Some(Position::Start(at));
        check("beginning", start(Start::Beginning));
        check("start", start(Start::Beginning));
        check("end", start(Start::End));
        check("0", start(Start::Offset(0)));
        check("+7", start(Start::Offset(7)));
        check("-10", start(Start::Last(10)));
        check("s@1700000000000", start(Start::Time(1_700_000_000_000)));
        check("@1970-01-01T00:00:01Z", start(Start::Time(1_000)));
        check("@-1h", start(Start::Time(10_000_000 - 3_600_000)));
        check("-1h", start(Start::Time(10_000_000 - 3_600_000)));
        check("1970-01-01T00:00:01Z", start(Start::Time(1_000)));
        check("e@-1h", Some(Position::Until(Start::Time(6_400_000))));
        check("e@5", Some(Position::Until(Start::Time(5))));
        check("stored", None);
        check("@yesterday", None);
        check("", None);
    }

    #[test]
    fn a_range_is_of_positions_too() {
        assert_eq!(start("-5"), Ok(Start::Last(5)));
        assert_eq!(start("@1970-01-01T00:00:01Z"), Ok(Start::Time(1_000)));
        assert!(start("yesterday").is_err());
    }
}
