//! The mode of a request, by its content type.

use crate::http::{Problem, ProblemKind};
use crate::post::checks::MediaType;
use axum::http::{HeaderMap, header};

/// The content type of one event.
const STRUCTURED: &str = "application/cloudevents+json";
/// The content type of several.
const BATCH: &str = "application/cloudevents-batch+json";
/// The content type of data.
const DATA: &str = "application/json";

/// How a request carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::post) enum Mode {
    /// The body is an event in the JSON event format.
    Structured,
    /// The body is an array of them.
    Batch,
    /// The body is the data, and the attributes are headers.
    Data,
}

/// The mode of a request. `has_type` says that the path has the event's type: then the body is
/// data.
///
/// Decides by headers only, before the body is read.
///
/// # Errors
/// [`ProblemKind::UnsupportedMediaType`], with the accepted types, for any other content type, for
/// a `charset` other than UTF-8, and for a body with a content coding such as gzip.
pub(in crate::post) fn mode(headers: &HeaderMap, has_type: bool) -> Result<Mode, Problem> {
    let refused = |detail: &'static str| {
        let accepted = if has_type {
            vec![DATA]
        } else {
            vec![STRUCTURED, BATCH, DATA]
        };
        let problem = Problem::new(ProblemKind::UnsupportedMediaType, detail);
        Err(problem.with_member("accepted", accepted))
    };
    for coding in headers.get_all(header::CONTENT_ENCODING) {
        if !coding
            .as_bytes()
            .trim_ascii()
            .eq_ignore_ascii_case(b"identity")
        {
            return refused("the body has a content coding; send it without");
        }
    }
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = values.next() else {
        return refused("the request has no content type");
    };
    let media_type = value.to_str().ok().and_then(MediaType::parse);
    let Some(media_type) = media_type.filter(|_| values.next().is_none()) else {
        return refused("the content type cannot be read");
    };
    if !media_type.is_utf8() {
        return refused("only the charset UTF-8 is accepted");
    }
    match media_type.essence() {
        STRUCTURED | BATCH if has_type => {
            refused("send events to /events; a path with a type takes the data alone")
        }
        STRUCTURED => Ok(Mode::Structured),
        BATCH => Ok(Mode::Batch),
        _ if media_type.is_json_data() => Ok(Mode::Data),
        _ => refused("the content type is not accepted; data must be JSON"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn the_content_type_decides() {
        for (content_type, to_events, to_type) in [
            ("application/cloudevents+json", Some(Mode::Structured), None),
            (
                "Application/CloudEvents+JSON; charset=UTF-8",
                Some(Mode::Structured),
                None,
            ),
            (
                "application/cloudevents-batch+json;charset=utf-8",
                Some(Mode::Batch),
                None,
            ),
            ("application/json", Some(Mode::Data), Some(Mode::Data)),
            (
                "application/vnd.shop+json",
                Some(Mode::Data),
                Some(Mode::Data),
            ),
            ("application/cloudevents+json; charset=utf-16", None, None),
            ("application/cloudevents+avro", None, None),
            ("application/cloudevents+protobuf", None, None),
            ("application/cloudevents-batch+xml", None, None),
            ("application/cloudevents", None, None),
            ("application/cloudevents.x+json", None, None),
            ("application/x-www-form-urlencoded", None, None),
            ("text/plain", None, None),
            ("*/*", None, None),
            ("", None, None),
        ] {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_static(content_type);
            headers.insert(header::CONTENT_TYPE, value);
            assert_eq!(mode(&headers, false).ok(), to_events, "{content_type}");
            assert_eq!(mode(&headers, true).ok(), to_type, "{content_type}");
        }
    }

    #[test]
    fn a_refusal_names_the_accepted_types() {
        let problem = mode(&HeaderMap::new(), false).expect_err("no content type");
        assert_eq!(problem.kind, ProblemKind::UnsupportedMediaType);
        assert_eq!(
            problem.members["accepted"][1],
            "application/cloudevents-batch+json"
        );
        let mut twice = HeaderMap::new();
        for _ in 0..2 {
            twice.append(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
        }
        mode(&twice, false).expect_err("two content types");
    }

    #[test]
    fn a_content_coding_is_refused() {
        for (coding, is_accepted) in [
            ("identity", true),
            ("Identity", true),
            ("gzip", false),
            ("identity, gzip", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
            assert_eq!(mode(&headers, false).is_ok(), is_accepted, "{coding:?}");
        }
    }
}
