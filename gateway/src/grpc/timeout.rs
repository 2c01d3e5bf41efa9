//! The deadline of a call, in `grpc-timeout`.

use crate::http::{Problem, ProblemKind};
use axum::http::HeaderMap;
use std::time::Duration;

/// The header with the deadline of a call.
pub(super) const TIMEOUT_HEADER: &str = "grpc-timeout";

/// Reads `grpc-timeout`: at most eight digits and a unit.
pub(super) fn grpc_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let mut values = headers.get_all(TIMEOUT_HEADER).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let value = Some(value).filter(|_| values.next().is_none());
    let text = value.and_then(|value| value.to_str().ok());
    match text.and_then(parse_timeout) {
        Some(timeout) => Ok(Some(timeout)),
        None => {
            let detail = "grpc-timeout must be one to eight digits and a unit: H, M, S, m, u or n; \
                          and there only once";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

fn parse_timeout(text: &str) -> Option<Duration> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let digits = text.get(..unit_at)?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    // Eight digits of hours in seconds are far below the limit of a u64, and of an Instant.
    Some(match unit {
        'H' => Duration::from_secs(number * 3_600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3_600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("4m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0S", Some(Duration::ZERO)),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3_600))),
            ("100000000S", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            ("", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text:?}");
        }
    }

    #[test]
    fn two_timeouts_are_refused() {
        let mut headers = HeaderMap::new();
        headers.append(TIMEOUT_HEADER, HeaderValue::from_static("1S"));
        assert_eq!(grpc_timeout(&headers), Ok(Some(Duration::from_secs(1))));
        headers.append(TIMEOUT_HEADER, HeaderValue::from_static("2S"));
        let refused = grpc_timeout(&headers).expect_err("two of them");
        assert_eq!(refused.kind, ProblemKind::Malformed);
    }
}
