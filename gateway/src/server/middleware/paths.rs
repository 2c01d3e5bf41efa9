//! Refuses URLs that no client of this gateway sends: too long, or with a path written so that two
//! programs may read it differently.

use crate::http::{Problem, ProblemKind};
use axum::http::Uri;

/// The most bytes of path and query.
pub(in crate::server) const URL_BYTES_MAX: usize = 4 << 10;

/// Encodings of characters that shorten or end paths: `.`, `\` and NUL. An encoded `/` is part of an
/// id, because routes are matched before their segments are decoded.
const TRICKS: [&str; 3] = ["%2e", "%5c", "%00"];

/// The refusal of a request to this URL: 414 or 404.
pub(super) fn refusal(uri: &Uri) -> Option<Problem> {
    let length = uri.path_and_query().map_or(0, |text| text.as_str().len());
    if length > URL_BYTES_MAX {
        let detail = format!("path and query have at most {URL_BYTES_MAX} bytes");
        return Some(Problem::new(ProblemKind::UriTooLong, detail));
    }
    is_ambiguous(uri.path()).then(|| Problem::new(ProblemKind::NotFound, "there is no such route"))
}

fn is_ambiguous(path: &str) -> bool {
    path.contains("//")
        || path.contains('\\')
        || path.split('/').any(|segment| matches!(segment, "." | ".."))
        || path.contains('%') && has_trick(&path.to_ascii_lowercase())
}

fn has_trick(lower: &str) -> bool {
    TRICKS.iter().any(|trick| lower.contains(trick))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_with_one_reading_pass() {
        for (path, expected) in [
            ("/events", false),
            ("/events/shop.order-placed.v1", false),
            ("/events/a%20b", false),
            ("/evenkeel.gateway.v1.Events/Post", false),
            ("/events/..", true),
            ("/./events", true),
            ("//events", true),
            ("/events//x", true),
            ("/events/%2e%2E", true),
            ("/events/a%2Fb", false),
            ("/events\\x", true),
            ("/events/%5cx", true),
            ("/events/%00", true),
        ] {
            assert_eq!(is_ambiguous(path), expected, "{path}");
        }
    }
}
