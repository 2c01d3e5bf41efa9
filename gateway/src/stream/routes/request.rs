//! What a client asks for: query parameters, the last event id, and the page that it comes from.
//!
//! Pure.

use super::super::frame::Filter;
use super::super::streams::StreamStart;
use crate::http::{Problem, ProblemKind, is_utf8_query};
use axum::extract::Query;
use axum::http::{HeaderMap, HeaderValue, Uri, header};

/// The longest cursor over HTTP, in bytes: the head of a request has to have room for it.
const CURSOR_BYTES_MAX: usize = 12 << 10;
/// The header with the cursor of the last event, as the HTML standard names it.
const LAST_EVENT_ID: &str = "last-event-id";

/// The filter and the start in a query and in the headers.
pub(super) fn read(uri: &Uri, headers: &HeaderMap) -> Result<(Filter, StreamStart), Problem> {
    let malformed = |detail: String| Problem::new(ProblemKind::Malformed, detail);
    if !is_utf8_query(uri.query()) {
        return Err(malformed("the query of the URL is not UTF-8".to_owned()));
    }
    let query = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|_| malformed("the query of the URL cannot be read".to_owned()))?;
    let mut types: Vec<String> = Vec::new();
    let (mut key, mut from): (Option<String>, Option<String>) = (None, None);
    for (name, value) in query.0 {
        let previous = match name.as_str() {
            "type" if types.contains(&value) => Some(value),
            "type" => {
                types.push(value);
                None
            }
            "key" => key.replace(value),
            "from" => from.replace(value),
            _ => {
                let detail = "unknown parameter; there are type, key and from";
                return Err(malformed(detail.to_owned()));
            }
        };
        if previous.is_some() {
            return Err(malformed(format!("the parameter {name} repeats")));
        }
    }
    let last_event_id = last_event_id(headers).map_err(|detail| malformed(detail.to_owned()))?;
    let start = match (last_event_id, from.as_deref()) {
        (Some(cursor), _) => StreamStart::After(cursor),
        (None, None | Some("now")) => StreamStart::Now,
        (None, Some("earliest")) => StreamStart::Earliest,
        (None, Some(cursor)) => StreamStart::After(cursor.to_owned()),
    };
    Ok((Filter::new(types).with_key(key), start))
}

/// The cursor of the last event. A browser sends an empty header before the first event.
///
/// # Errors
/// If it is no text, or there are two: a stream from the wrong one would leave events out.
fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    let mut values = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err("Last-Event-ID is there more than once");
    }
    let text = value.to_str().map_err(|_| "Last-Event-ID is no cursor")?;
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// Refuses a stream that could not be resumed.
pub(super) fn check_cursor(cursor: &str) -> Result<(), Problem> {
    if cursor.len() <= CURSOR_BYTES_MAX {
        return Ok(());
    }
    let detail = "the cursors of this stream have more than 12 KiB, too much for a header: name \
                  event types of fewer partitions, or use gRPC (Watch)";
    Err(Problem::new(ProblemKind::Unsupported, detail))
}

/// What a page of this origin may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// No page, or one of this host.
    Own,
    /// A page of a site that is allowed.
    Allowed(HeaderValue),
    /// A page of any other site.
    Foreign,
}

impl Origin {
    /// The origin of a request.
    pub(super) fn of(uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Self {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Self::Own;
        };
        let Ok(text) = origin.to_str() else {
            return Self::Foreign;
        };
        if allowed
            .iter()
            .any(|allowed| allowed.eq_ignore_ascii_case(text))
        {
            return Self::Allowed(origin.clone());
        }
        // HTTP/2 has the host in the URL.
        let host = match uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => headers
                .get(header::HOST)
                .and_then(|host| host.to_str().ok()),
        };
        let page_host = text.split_once("://").map(|(_, host)| host);
        match (page_host, host) {
            (Some(page), Some(host)) if page.eq_ignore_ascii_case(host) => Self::Own,
            _ => Self::Foreign,
        }
    }

    /// Adds the headers by which a browser lets the page read an answer. None for other pages.
    pub(super) fn allow(&self, headers: &mut HeaderMap) {
        if let Self::Allowed(origin) = self {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/events{query}").parse().expect("a URI")
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_stream_that_could_not_resume_is_refused() {
        assert_eq!(check_cursor(&"c".repeat(CURSOR_BYTES_MAX)), Ok(()));
        let refused = check_cursor(&"c".repeat(CURSOR_BYTES_MAX + 1));
        let kind = refused.map_err(|problem| problem.kind);
        assert_eq!(kind, Err(ProblemKind::Unsupported));
    }

    #[test]
    fn queries_are_read_strictly() {
        let after = |cursor: &str| StreamStart::After(cursor.to_owned());
        for (query, types, key, start) in [
            ("?type=a", &["a"][..], None, StreamStart::Now),
            (
                "?type=a&type=b&key=k%201&from=now",
                &["a", "b"][..],
                Some("k 1"),
                StreamStart::Now,
            ),
            (
                "?from=earliest&type=a&key=",
                &["a"][..],
                Some(""),
                StreamStart::Earliest,
            ),
            (
                "?type=a&key=caf%C3%A9",
                &["a"][..],
                Some("caf\u{e9}"),
                StreamStart::Now,
            ),
            ("?type=a&from=AbC_-", &["a"][..], None, after("AbC_-")),
            ("", &[][..], None, StreamStart::Now),
        ] {
            let (filter, read) = read(&uri(query), &HeaderMap::new()).expect(query);
            assert_eq!(filter.types, types, "{query}");
            assert_eq!(filter.key.as_deref(), key, "{query}");
            assert_eq!(read, start, "{query}");
        }
        for query in [
            "?type=a&type=a",
            "?key=1&key=2",
            "?from=now&from=now",
            "?typ=a",
            "?Type=a",
            // ISO 8859-1: a stream of this key would have no event.
            "?type=a&key=caf%E9",
        ] {
            let problem = read(&uri(query), &HeaderMap::new()).expect_err(query);
            assert_eq!(problem.kind, ProblemKind::Malformed, "{query}");
        }
    }

    #[test]
    fn the_last_event_id_counts_before_the_query() {
        let query = uri("?type=a&from=earliest");
        let read = |id| {
            read(&query, &headers(&[("last-event-id", id)]))
                .expect("valid")
                .1
        };
        assert_eq!(read("abc"), StreamStart::After("abc".to_owned()));
        assert_eq!(read(""), StreamStart::Earliest);
    }

    #[test]
    fn two_last_event_ids_are_refused() {
        let mut headers = headers(&[("last-event-id", "abc")]);
        headers.append("last-event-id", HeaderValue::from_static("def"));
        let refused = read(&uri("?type=a"), &headers).expect_err("two cursors");
        assert_eq!(refused.kind, ProblemKind::Malformed);
    }

    #[test]
    fn only_own_and_allowed_pages_are_accepted() {
        let allowed = ["https://app.example".to_owned()];
        for (uri, host, origin, is_own, is_allowed) in [
            ("/ws", "gw.example", "", true, false),
            ("/ws", "gw.example", "https://gw.example", true, false),
            (
                "/ws",
                "gw.example:8443",
                "https://GW.example:8443",
                true,
                false,
            ),
            ("/ws", "gw.example:8443", "https://gw.example", false, false),
            ("/ws", "gw.example", "https://app.example", false, true),
            (
                "/ws",
                "gw.example",
                "https://app.example.evil.example",
                false,
                false,
            ),
            ("/ws", "gw.example", "https://evil.example", false, false),
            ("/ws", "gw.example", "null", false, false),
            ("/ws", "gw.example", "gw.example", false, false),
            (
                "https://gw.example/ws",
                "evil.example",
                "https://gw.example",
                true,
                false,
            ),
            (
                "https://gw.example/ws",
                "evil.example",
                "https://evil.example",
                false,
                false,
            ),
        ] {
            let mut headers = headers(&[("host", host)]);
            if !origin.is_empty() {
                headers.insert("origin", HeaderValue::from_static(origin));
            }
            let uri = uri.parse().expect("a URI");
            let found = Origin::of(&uri, &headers, &allowed);
            assert_eq!(found == Origin::Own, is_own, "{origin}");
            assert_eq!(matches!(found, Origin::Allowed(_)), is_allowed, "{origin}");
            let mut answer = HeaderMap::new();
            found.allow(&mut answer);
            assert_eq!(
                answer.contains_key("access-control-allow-origin"),
                is_allowed
            );
        }
    }
}
