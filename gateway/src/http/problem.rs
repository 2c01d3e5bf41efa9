//! Errors as problem details (RFC 9457), the only form of an error that a route returns.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::borrow::Cow;
use std::time::Duration;

/// The media type of a problem.
const PROBLEM_JSON: &str = "application/problem+json";

/// The kind of a problem: its `type` URI is `/problems/<name>`, its HTTP status and its gRPC code
/// follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemKind {
    /// The request cannot be read: syntax, an unknown attribute, a cursor that is damaged.
    Malformed,
    /// The event violates its schema.
    InvalidEvent,
    /// No token, or one that is unknown, expired or not yet valid.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// There is no such event, order or route.
    NotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// Another request with the same `Idempotency-Key` is under way.
    InProgress,
    /// The `Idempotency-Key`, or the event id, was used with another content.
    Reused,
    /// The position of the cursor is no longer on the log.
    Gone,
    /// The body is larger than allowed.
    TooLarge,
    /// The body arrives too slowly. Nothing was accepted.
    SlowBody,
    /// The URL is longer than allowed.
    UriTooLong,
    /// The content type is not one of those accepted.
    UnsupportedMediaType,
    /// The caller exceeds its rate.
    RateLimited,
    /// The gateway is overloaded, or it stops.
    Overloaded,
    /// The deadline of the request passed. The event may have been accepted nevertheless.
    DeadlineExceeded,
    /// The store or the brokers do not answer.
    Unavailable,
    /// This gateway is not configured for it.
    Unsupported,
    /// A defect of the gateway.
    Internal,
}

impl ProblemKind {
    /// Its name in the `type` URI, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::InvalidEvent => "invalid-event",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::InProgress => "in-progress",
            Self::Reused => "reused",
            Self::Gone => "gone",
            Self::TooLarge => "too-large",
            Self::SlowBody => "slow-body",
            Self::UriTooLong => "uri-too-long",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::RateLimited => "rate-limited",
            Self::Overloaded => "overloaded",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Unavailable => "unavailable",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// Its HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::InvalidEvent | Self::Reused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InProgress => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody => StatusCode::REQUEST_TIMEOUT,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What the kind means, the same for every problem of the kind.
    pub fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request cannot be read",
            Self::InvalidEvent => "The event violates its schema",
            Self::Unauthenticated => "A valid token is required",
            Self::Forbidden => "Not allowed for this caller",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "The route has no such method",
            Self::InProgress => "The same request is under way",
            Self::Reused => "The key was used with another content",
            Self::Gone => "The position is no longer on the log",
            Self::TooLarge => "The body is too large",
            Self::SlowBody => "The body arrives too slowly",
            Self::UriTooLong => "The URL is too long",
            Self::UnsupportedMediaType => "The content type is not accepted",
            Self::RateLimited => "Too many requests from this caller",
            Self::Overloaded => "The gateway is overloaded",
            Self::DeadlineExceeded => "The deadline passed",
            Self::Unavailable => "The store or the brokers do not answer",
            Self::Unsupported => "Not configured on this gateway",
            Self::Internal => "Internal error",
        }
    }
}

/// One part of a request that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON Pointer (RFC 6901) to the value in the request's body; empty for the whole body.
    pub pointer: String,
    /// What is wrong with it, without the value itself.
    pub detail: String,
}

/// An error answer. `detail` is for the caller: it names no payload value and no secret.
///
/// ```
/// use evenkeel_gateway::http::{Problem, ProblemKind};
///
/// let problem = Problem::new(ProblemKind::NotFound, "no event has this id");
/// assert_eq!(problem.kind.status(), 404);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The kind.
    pub kind: ProblemKind,
    /// What happened in this case, and what to do next.
    pub detail: Cow<'static, str>,
    /// The invalid parts, for [`ProblemKind::InvalidEvent`] and [`ProblemKind::Malformed`].
    pub errors: Vec<FieldError>,
    /// The time after which a retry makes sense. Sent as `Retry-After`, in whole seconds.
    pub retry_after: Option<Duration>,
    /// Further members of the JSON object, such as the earliest cursor of a stream.
    pub members: serde_json::Map<String, serde_json::Value>,
}

impl Problem {
    /// Creates a problem of this kind.
    pub fn new(kind: ProblemKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
            members: serde_json::Map::new(),
        }
    }

    /// Names the invalid parts of the request.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// Sets the time after which a retry makes sense.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: impl Into<Option<Duration>>) -> Self {
        self.retry_after = retry_after.into();
        self
    }

    /// Adds a member to the JSON object.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The JSON object of the answer.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = self.members.clone();
        object.insert(
            "type".into(),
            format!("/problems/{}", self.kind.name()).into(),
        );
        object.insert("title".into(), self.kind.title().into());
        object.insert("status".into(), self.kind.status().as_u16().into());
        object.insert("detail".into(), self.detail.as_ref().into());
        if !self.errors.is_empty() {
            let errors = self
                .errors
                .iter()
                .map(|error| serde_json::json!({"pointer": error.pointer, "detail": error.detail}));
            object.insert("errors".into(), errors.collect());
        }
        object.into()
    }

    /// The value of `Retry-After`: whole seconds, rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let after = self.retry_after?;
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Some(seconds.max(1))
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.title(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json().to_string();
        let content_type = HeaderValue::from_static(PROBLEM_JSON);
        let mut response = (self.kind.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.kind == ProblemKind::Unauthenticated {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let problem = Problem::new(ProblemKind::Overloaded, "busy");
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2)] {
            let problem = problem
                .clone()
                .with_retry_after(Duration::from_millis(millis));
            assert_eq!(problem.retry_after_seconds(), Some(seconds), "{millis}");
        }
        assert_eq!(problem.retry_after_seconds(), None);
    }

    #[test]
    fn a_member_cannot_replace_the_problems_own() {
        let problem = Problem::new(ProblemKind::Gone, "old").with_member("status", 200);
        assert_eq!(problem.to_json()["status"], 410);
    }
}
