//! The time in an id, and the hints of the query. Pure.

use super::log_search::Since;
use crate::http::{Problem, ProblemKind};
use jiff::Timestamp;
use serde::Deserialize;

/// The longest id and source that are looked up, in bytes. Longer ones are not found.
const NAME_BYTES_MAX: usize = 1_024;
/// An event is searched from this long before the time in its id, in milliseconds. Its publisher
/// may have any clock.
const ID_SKEW_MS: i64 = 600_000;
/// A time in an id that is later than now by more than this is wrong, in milliseconds. By less, the
/// clocks differ as clocks do.
const FUTURE_MS: i64 = 60_000;

/// The query of a status request.
///
/// ```
/// use evenkeel_gateway::status::StatusQuery;
///
/// let query = StatusQuery::default().with_source("/callers/web");
/// assert_eq!(query.source.as_deref(), Some("/callers/web"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct StatusQuery {
    /// The event's `source`. Needed only if several events have the same id.
    pub source: Option<String>,
    /// The event's `type`: where to search for an event that this gateway did not accept. With it,
    /// the latest records before the time in the id are searched, too.
    #[serde(rename = "type")]
    pub ty: Option<String>,
    /// A time before the event was published, in RFC 3339: from when to search for it.
    pub since: Option<Timestamp>,
}

impl StatusQuery {
    /// Sets the [`source`](Self::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the [`type`](Self::ty).
    #[must_use]
    pub fn with_type(mut self, ty: impl Into<String>) -> Self {
        self.ty = Some(ty.into());
        self
    }

    /// Sets [`since`](Self::since).
    #[must_use]
    pub fn with_since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }
}

/// Refuses an id or source that no event can have: they are kept in caches, whose entries are
/// bounded by this.
pub(super) fn check(id: &str, source: Option<&str>) -> Result<(), Problem> {
    let is_name = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
    match is_name(id) && source.is_none_or(is_name) {
        true => Ok(()),
        false => Err(not_found()),
    }
}

/// The answer for an event that does not exist, and for one that the caller may not see.
pub(super) fn not_found() -> Problem {
    Problem::new(ProblemKind::NotFound, "no event has this id")
}

/// The answer for an id whose time is unknown, if the gateway did not accept it.
pub(super) fn not_found_without_hints() -> Problem {
    let detail = "this gateway accepted no event with this id, and the id does not contain its \
                  time; add ?type= and ?since= (RFC 3339) to search the topic of the type";
    Problem::new(ProblemKind::NotFound, detail)
}

/// The time in a UUID of version 7, in milliseconds since 1970. `None` for any other id.
pub(super) fn uuid_v7_ms(id: &str) -> Option<i64> {
    let bytes = id.as_bytes();
    let is_form = bytes.len() == 36
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    let is_variant = matches!(bytes.get(19), Some(b'8' | b'9' | b'a' | b'b' | b'A' | b'B'));
    if !is_form || !is_variant || bytes[14] != b'7' {
        return None;
    }
    let high = i64::from_str_radix(id.get(..8)?, 16).ok()?;
    let low = i64::from_str_radix(id.get(9..13)?, 16).ok()?;
    Some(high << 16 | low)
}

/// From when on to search for an event that this gateway did not accept, by the hints and the time
/// in its id. `None` without both.
///
/// Records before the time in an id are searched only if that is certainly wrong, or in the topic
/// of one type: a client that polls for an event that is not there yet pays for them each time.
pub(super) fn search_start(query: &StatusQuery, id_ms: Option<i64>, now_ms: i64) -> Option<Since> {
    if let Some(since) = query.since {
        return Some(Since::Known(since.as_millisecond()));
    }
    let id_ms = id_ms?;
    let is_future = id_ms > now_ms.saturating_add(FUTURE_MS);
    let since = match is_future || query.ty.is_some() {
        true => Since::Claimed(id_ms),
        false => Since::Probable(id_ms),
    };
    Some(since.before(ID_SKEW_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_version_7_id_has_a_time() {
        for (id, expected) in [
            (
                "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
                Some(1_645_557_742_000),
            ),
            (
                "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
                Some(1_645_557_742_000),
            ),
            ("017f22e2-79b0-4cc3-98c4-dc0c0c07398f", None),
            ("017f22e2-79b0-7cc3-18c4-dc0c0c07398f", None),
            ("017f22e279b07cc398c4dc0c0c07398f", None),
            ("017f22e2-79b0-7cc3-98c4-dc0c0c07398", None),
            ("017f22e2-79b0-7cc3-98c4-dc0c0c07398g", None),
            ("+17f22e2-79b0-7cc3-98c4-dc0c0c07398f", None),
            ("ää7f22e2-79b0-7cc3-98c4-dc0c0c0739", None),
            ("o-1", None),
            ("", None),
        ] {
            assert_eq!(uuid_v7_ms(id), expected, "{id}");
        }
        let fresh = uuid_v7_ms(&evenkeel::event::new_id()).expect("a time");
        assert!((Timestamp::now().as_millisecond() - fresh).abs() < 60_000);
    }

    #[test]
    fn older_records_are_searched_for_a_type_or_a_future_id() {
        let now = 1_000_000_000;
        let near = now + FUTURE_MS;
        let plain = StatusQuery::default();
        let typed = plain.clone().with_type("a.v1");
        let known = Timestamp::from_millisecond(7).expect("a time");
        let hinted = typed.clone().with_since(known);
        for (query, id_ms, expected) in [
            (&plain, None, None),
            (&typed, None, None),
            (&plain, Some(now), Some(Since::Probable(now - ID_SKEW_MS))),
            (&plain, Some(near), Some(Since::Probable(near - ID_SKEW_MS))),
            (
                &plain,
                Some(near + 1),
                Some(Since::Claimed(near + 1 - ID_SKEW_MS)),
            ),
            (&typed, Some(now), Some(Since::Claimed(now - ID_SKEW_MS))),
            (&hinted, Some(now), Some(Since::Known(7))),
            (&hinted, None, Some(Since::Known(7))),
        ] {
            let found = search_start(query, id_ms, now);
            assert_eq!(found, expected, "{query:?} {id_ms:?}");
        }
    }

    #[test]
    fn names_that_no_event_has_are_not_found() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for (id, source, is_good) in [
            ("o-1", None, true),
            ("o-1", Some("/web"), true),
            ("", None, false),
            ("o-1", Some(""), false),
            (&*long, None, false),
            ("o-1", Some(&*long), false),
        ] {
            assert_eq!(check(id, source).is_ok(), is_good);
        }
    }
}
