//! The body of a request, within its limits, and its text.

use crate::http::{Problem, ProblemKind};
use crate::post::limits::PostLimits;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, header};
use http_body_util::LengthLimitError;
use std::error::Error;
use tokio::time::{Instant, timeout_at};

/// Reads a body.
///
/// # Errors
/// - [`ProblemKind::TooLarge`]: it is longer than allowed. Not a byte is read if `Content-Length`
///   says so.
/// - [`ProblemKind::DeadlineExceeded`]: it did not arrive in time
/// - [`ProblemKind::Malformed`]: it broke off, or `Content-Length` is not a number
pub(in crate::post) async fn read_body(
    headers: &HeaderMap,
    body: Body,
    limits: &PostLimits,
    deadline: Option<Instant>,
) -> Result<Bytes, Problem> {
    check_length(headers, limits)?;
    let latest = Instant::now() + limits.body_time_max;
    let deadline = deadline.map_or(latest, |deadline| deadline.min(latest));
    match timeout_at(deadline, to_bytes(body, limits.body_bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(too_large(limits)),
        Ok(Err(_)) => {
            let detail = "the body broke off; nothing was accepted";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
        Err(_) => {
            let detail = "the body did not arrive in time; nothing was accepted";
            Err(Problem::new(ProblemKind::DeadlineExceeded, detail))
        }
    }
}

/// Checks the length that a request declares.
///
/// # Errors
/// - [`ProblemKind::TooLarge`]: it is more than allowed
/// - [`ProblemKind::Malformed`]: `Content-Length` is not a number
pub(in crate::post) fn check_length(
    headers: &HeaderMap,
    limits: &PostLimits,
) -> Result<(), Problem> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(());
    };
    let length = length.to_str().ok();
    match length.and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limits.body_bytes_max as u64 => Err(too_large(limits)),
        Some(_) => Ok(()),
        None => {
            let detail = "Content-Length is not a number";
            Err(Problem::new(ProblemKind::Malformed, detail))
        }
    }
}

/// Whether a limit was reached: that of this file, or an outer one of a middleware.
fn is_limit(error: &(dyn Error + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes.any(|cause| cause.is::<LengthLimitError>())
}

/// The refusal of a body that is longer than allowed.
pub(in crate::post) fn too_large(limits: &PostLimits) -> Problem {
    let detail = format!("at most {} bytes are accepted", limits.body_bytes_max);
    let problem = Problem::new(ProblemKind::TooLarge, detail);
    problem.with_member("maxBytes", limits.body_bytes_max)
}

/// The text of a body. One byte order mark at its start is skipped, as RFC 8259 allows: some
/// clients write it.
///
/// # Errors
/// [`ProblemKind::Malformed`] if the body is empty, or not UTF-8.
pub(in crate::post) fn body_text(body: &[u8]) -> Result<&str, Problem> {
    let malformed = |detail: &'static str| Problem::new(ProblemKind::Malformed, detail);
    let text = std::str::from_utf8(body).map_err(|_| malformed("the body is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(malformed("the body is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use futures_util::stream;
    use std::convert::Infallible;
    use std::time::Duration;

    fn limits() -> PostLimits {
        PostLimits::default().with_body_bytes_max(10)
    }

    /// A body without a length, in chunks of three bytes.
    fn chunked(length: usize) -> Body {
        let chunks = vec![b'x'; length];
        let chunks: Vec<_> = chunks.chunks(3).map(Bytes::copy_from_slice).collect();
        Body::from_stream(stream::iter(chunks.into_iter().map(Ok::<_, Infallible>)))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        for (length, is_accepted) in [(0, true), (10, true), (11, false), (1_000, false)] {
            let read = read_body(&HeaderMap::new(), chunked(length), &limits(), None).await;
            let expected = match is_accepted {
                true => Ok(length),
                false => Err(ProblemKind::TooLarge),
            };
            let read = read
                .map(|bytes| bytes.len())
                .map_err(|problem| problem.kind);
            assert_eq!(read, expected, "{length}");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_refused_unread() {
        for (length, kind) in [
            ("11", ProblemKind::TooLarge),
            ("18446744073709551615", ProblemKind::TooLarge),
            ("18446744073709551616", ProblemKind::Malformed),
            ("-1", ProblemKind::Malformed),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static(length));
            // Reading this body would never end.
            let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
            let read = read_body(&headers, body, &limits(), None).await;
            assert_eq!(read.map_err(|problem| problem.kind), Err(kind), "{length}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_refused_at_the_earlier_deadline() {
        for (deadline, seconds) in [(None, 30), (Some(2), 2), (Some(60), 30)] {
            let begun = Instant::now();
            let deadline = deadline.map(|seconds| begun + Duration::from_secs(seconds));
            let body = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
            let read = read_body(&HeaderMap::new(), body, &limits(), deadline).await;
            let kind = read.expect_err("it never ends").kind;
            assert_eq!(kind, ProblemKind::DeadlineExceeded);
            assert_eq!(begun.elapsed().as_secs(), seconds, "{deadline:?}");
        }
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_malformed() {
        let chunks = [
            Ok(Bytes::from_static(b"{")),
            Err(std::io::Error::other("gone")),
        ];
        let body = Body::from_stream(stream::iter(chunks));
        let read = read_body(&HeaderMap::new(), body, &limits(), None).await;
        assert_eq!(read.expect_err("half a body").kind, ProblemKind::Malformed);
    }

    #[test]
    fn a_body_is_utf_8_with_at_most_one_mark() {
        let check = |body: &[u8], expected: Option<&str>| {
            assert_eq!(body_text(body).ok(), expected, "{body:?}");
        };
        check(b"{}", Some("{}"));
        check(b"\xEF\xBB\xBF{}", Some("{}"));
        check(b"\xEF\xBB\xBF\xEF\xBB\xBF{}", Some("\u{feff}{}"));
        check(b" {} ", Some(" {} "));
        check(b"\xFF\xFE{\0}\0", None);
        check(b"\"\xC0\xA0\"", None);
        check(b"\"\xE9\"", None);
        check(b"", None);
        check(b" \r\n", None);
        check(b"\xEF\xBB\xBF", None);
    }
}
