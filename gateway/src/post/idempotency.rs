//! The `Idempotency-Key` of a request (draft-ietf-httpapi-idempotency-key-header-07).

use crate::http::{Problem, ProblemKind};
use axum::http::{HeaderMap, HeaderName, Method};
use sha2::{Digest, Sha256};

/// The request's header.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The most characters of a key.
const KEY_CHARS_MAX: usize = 255;
/// The prefix of headers that carry an event's attributes.
const ATTRIBUTE_PREFIX: &str = "ce-";
/// Headers of that prefix that the gateway ignores, and that a retry may change.
const IGNORED: [&str; 2] = ["ce-traceparent", "ce-tracestate"];

/// An `Idempotency-Key`, with a digest of the request that it is used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key, 1 to 255 visible ASCII characters or spaces. It belongs to the caller: keys of
    /// different callers are independent.
    pub key: String,
    /// The SHA-256 of the request, by which a repetition is told from a reuse of the key.
    pub fingerprint: [u8; 32],
}

impl IdempotencyKey {
    /// Reads the key of a request. None without the header.
    ///
    /// The draft's form is a quoted string, `"8e03978e"`; most clients send it unquoted, which
    /// means the same. The fingerprint covers method, path, content type, the `ce-*` headers and
    /// the body. It leaves out all other headers, which proxies and retries change.
    ///
    /// ```
    /// use axum::http::{HeaderMap, HeaderValue, Method};
    /// use evenkeel_gateway::post::IdempotencyKey;
    ///
    /// let mut headers = HeaderMap::new();
    /// headers.insert("idempotency-key", HeaderValue::from_static("\"8e03978e\""));
    /// let read = |body: &[u8]| {
    ///     IdempotencyKey::of_request(&headers, &Method::POST, "/events", "application/json", body)
    /// };
    /// let key = read(b"{}")?.expect("a key");
    /// assert_eq!(key.key, "8e03978e");
    /// assert_eq!(Some(&key), read(b"{}")?.as_ref());
    /// assert_ne!(Some(key), read(b"[]")?);
    /// # Ok::<(), evenkeel_gateway::http::Problem>(())
    /// ```
    ///
    /// # Errors
    /// [`ProblemKind::Malformed`] if there are several keys, or the key is empty, too long or of
    /// other characters.
    pub fn of_request(
        headers: &HeaderMap,
        method: &Method,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(malformed("is there more than once"));
        }
        let text = value
            .to_str()
            .map_err(|_| malformed("is not visible ASCII text"))?;
        let key = parse(text.trim()).map_err(malformed)?;
        let fingerprint = fingerprint(headers, method, path, content_type, body);
        Ok(Some(Self { key, fingerprint }))
    }
}

fn malformed(reason: &str) -> Problem {
    Problem::new(
        ProblemKind::Malformed,
        format!("the header Idempotency-Key {reason}"),
    )
}

/// The key in a header's value: a string of a structured field, or an unquoted text.
fn parse(text: &str) -> Result<String, &'static str> {
    let key = match text.strip_prefix('"') {
        Some(rest) => quoted(rest)?,
        None if text.contains([' ', ',', ';', '"', '\t']) => {
            return Err("is several values, or a text that must be quoted");
        }
        None => text.to_owned(),
    };
    match key.len() {
        0 => Err("is empty"),
        length if length > KEY_CHARS_MAX => Err("is longer than 255 characters"),
        _ => Ok(key),
    }
}

/// The string that begins after this quote. Parameters after its end are ignored.
fn quoted(rest: &str) -> Result<String, &'static str> {
    let mut key = String::new();
    let mut characters = rest.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let after = characters.as_str().trim_start();
                let is_end = after.is_empty() || after.starts_with(';');
                let fault = "is several values, or has text after the quotes";
                return is_end.then_some(key).ok_or(fault);
            }
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err("has a backslash that escapes nothing"),
            },
            ' '..='~' => key.push(character),
            _ => return Err("has a control character"),
        }
    }
    Err("has no closing quote")
}

fn fingerprint(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    content_type: &str,
    body: &[u8],
) -> [u8; 32] {
    let mut sha = Sha256::new();
    let mut add = |part: &[u8]| {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    };
    for part in [method.as_str(), path, content_type] {
        add(part.as_bytes());
    }
    add(body);
    let is_attribute = |name: &str| name.starts_with(ATTRIBUTE_PREFIX) && !IGNORED.contains(&name);
    let attributes = headers
        .iter()
        .filter(|(name, _)| is_attribute(name.as_str()));
    let mut attributes: Vec<_> = attributes.collect();
    attributes.sort_by(|(left, _), (right, _)| left.as_str().cmp(right.as_str()));
    for (name, value) in attributes {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    sha.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a header value");
            headers.append(HeaderName::from_static(name), value);
        }
        headers
    }

    #[test]
    fn keys_are_quoted_or_plain() {
        let longest = "x".repeat(255);
        let too_long = "x".repeat(256);
        let quoted_longest = format!("\"{longest}\"");
        for (text, expected) in [
            ("8e03978e-40d5-43dd", Some("8e03978e-40d5-43dd")),
            ("\"8e03978e-40d5-43dd\"", Some("8e03978e-40d5-43dd")),
            ("\"a b\"", Some("a b")),
            (r#""a\"b\\c""#, Some(r#"a"b\c"#)),
            ("\"a\";v=1", Some("a")),
            ("\"a\" ; v=1", Some("a")),
            (longest.as_str(), Some(longest.as_str())),
            (quoted_longest.as_str(), Some(longest.as_str())),
            (too_long.as_str(), None),
            ("", None),
            ("\"\"", None),
            ("\"a", None),
            ("a\"", None),
            ("\"a\" \"b\"", None),
            ("\"a\", \"b\"", None),
            ("a, b", None),
            ("a,b", None),
            ("a b", None),
            (r#""a\n""#, None),
            ("é", None),
            ("\"é\"", None),
        ] {
            let headers = headers(&[("idempotency-key", text)]);
            let read = IdempotencyKey::of_request(&headers, &Method::POST, "/", "", b"");
            let read = read.ok().flatten().map(|key| key.key);
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
        let two = headers(&[("idempotency-key", "a"), ("idempotency-key", "a")]);
        let read = IdempotencyKey::of_request(&two, &Method::POST, "/", "", b"");
        assert_eq!(read.expect_err("two keys").kind, ProblemKind::Malformed);
        let none = IdempotencyKey::of_request(&headers(&[]), &Method::POST, "/", "", b"");
        assert_eq!(none, Ok(None));
    }

    #[test]
    fn a_fingerprint_covers_what_decides_the_event() {
        let read = |extra: &[(&'static str, &str)], path: &str, content_type: &str, body: &str| {
            fingerprint(
                &headers(extra),
                &Method::POST,
                path,
                content_type,
                body.as_bytes(),
            )
        };
        let first = read(&[("ce-id", "1"), ("ce-type", "t")], "/events", "j", "{}");
        let same = [
            read(&[("ce-type", "t"), ("ce-id", "1")], "/events", "j", "{}"),
            read(
                &[
                    ("ce-type", "t"),
                    ("ce-traceparent", "x"),
                    ("ce-id", "1"),
                    ("via", "proxy"),
                ],
                "/events",
                "j",
                "{}",
            ),
        ];
        assert_eq!(same, [first, first]);
        for other in [
            read(&[("ce-id", "2"), ("ce-type", "t")], "/events", "j", "{}"),
            read(&[("ce-id", "1"), ("ce-type", "u")], "/events", "j", "{}"),
            read(&[("ce-id", "1")], "/events", "j", "{}"),
            read(&[("ce-id", "1"), ("ce-type", "t")], "/events/t", "j", "{}"),
            read(&[("ce-id", "1"), ("ce-type", "t")], "/events", "k", "{}"),
            read(&[("ce-id", "1"), ("ce-type", "t")], "/events", "j", "{ }"),
        ] {
            assert_ne!(other, first);
        }
    }
}
