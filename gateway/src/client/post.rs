//! Posts events, and repeats requests as told.

use super::retry::{Next, next};
use rand::RngExt;
use reqwest::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How long one attempt may take, up to the last byte of the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the connection to one gateway may take. The next attempt goes to another one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The status of an answer that accepts.
const ACCEPTED: u16 = 202;
/// The status of a stream whose next events were deleted.
const GONE: u16 = 410;

/// A client of one or several gateways. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) http: reqwest::Client,
    urls: Vec<String>,
    token: Option<HeaderValue>,
    next: Arc<AtomicUsize>,
}

/// What the gateway accepted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Posted {
    /// Id of the event.
    pub id: String,
    /// Its source.
    pub source: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
    /// The trace of the request.
    #[serde(rename = "traceId")]
    pub trace_id: String,
    /// The gateway that accepted it.
    pub worker: String,
    /// How often the request was sent.
    #[serde(skip)]
    pub attempts: u32,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The gateway refused the request for good, and no attempt before may have been accepted.
    /// Nothing was accepted.
    #[error("refused with status {status}: {problem}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem (RFC 9457), as JSON.
        problem: String,
    },
    /// No final answer in time, or a refusal after an attempt whose answer was lost or an error of
    /// the gateway. It is not known whether the event was accepted: the same request with the same
    /// key finds out.
    #[error(
        "it is not known whether the event was accepted, after {attempts} attempts within \
         {seconds} s; the last: {last}"
    )]
    NoAnswer {
        /// The time that was allowed.
        seconds: u64,
        /// The attempts that were made.
        attempts: u32,
        /// How the last attempt ended.
        last: String,
    },
    /// The request or the answer cannot be read.
    #[error("{0}")]
    Invalid(String),
}

impl ClientError {
    /// The first cursor that the log still has, if a stream was refused with status 410: events
    /// after its cursor were deleted. Read the state elsewhere, then continue there.
    pub fn earliest_cursor(&self) -> Option<String> {
        let Self::Refused {
            status: GONE,
            problem,
        } = self
        else {
            return None;
        };
        let problem: serde_json::Value = serde_json::from_str(problem).ok()?;
        problem.get("earliest")?.as_str().map(str::to_owned)
    }
}

impl Client {
    /// A client of these gateways, or of a balancer before them, such as `http://127.0.0.1:8080`.
    /// Each request goes to the next one.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let urls = urls.into_iter().map(Into::into);
        let urls = urls.map(|url: String| url.trim_end_matches('/').to_owned());
        Self {
            shared: Arc::new(Shared {
                http: http_client(),
                urls: urls.collect(),
                token: None,
                next: Arc::default(),
            }),
        }
    }

    /// Sends this bearer token. A token with characters that a header cannot have is not sent, and
    /// the gateway refuses the requests.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        let token = HeaderValue::from_str(&format!("Bearer {token}")).ok();
        let mut shared = Shared::clone(&self.shared);
        shared.token = token.map(|mut token| {
            token.set_sensitive(true);
            token
        });
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Posts JSON to a path such as `/orders` or `/events/shop.order-placed.v1`, with this
    /// `Idempotency-Key`, until there is a final answer, at most for `within`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        idempotency_key: &str,
        within: Duration,
    ) -> Result<Posted, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Invalid(e.to_string()))?;
        let deadline = Instant::now() + within;
        let mut attempt = 0;
        let mut may_be_accepted = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = ATTEMPT_TIMEOUT.min(left);
            let (status, retry_after, answer) =
                self.attempt(path, &body, idempotency_key, limit).await?;
            attempt += 1;
            may_be_accepted |= is_uncertain(status);
            let jitter = rand::rng().random_range(0.0..1.0);
            match (next(status, retry_after, attempt - 1, jitter), status) {
                (Next::Final, Some(status)) if status == ACCEPTED || !may_be_accepted => {
                    return final_answer(status, &answer, attempt);
                }
                (Next::RetryAfter(pause), _) if Instant::now() + pause < deadline => {
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    return Err(ClientError::NoAnswer {
                        seconds: within.as_secs(),
                        attempts: attempt,
                        last: answer,
                    });
                }
            }
        }
    }

    /// The status, the `Retry-After` and the body of an answer, or why there is none.
    async fn attempt(
        &self,
        path: &str,
        body: &[u8],
        key: &str,
        limit: Duration,
    ) -> Result<(Option<u16>, Option<Duration>, String), ClientError> {
        let Some(url) = self.url(path) else {
            return Err(ClientError::Invalid("the client has no URL".to_owned()));
        };
        let request = self.shared.http.post(url).timeout(limit);
        let request = self
            .authorized(request)
            .header("content-type", "application/json")
            .header("idempotency-key", quoted(key))
            .body(body.to_vec());
        Ok(match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let retry_after = retry_after(response.headers().get(RETRY_AFTER));
                match response.text().await {
                    Ok(body) => (Some(status), retry_after, body),
                    Err(error) => (None, None, error.without_url().to_string()),
                }
            }
            Err(error) if error.is_builder() => return Err(unsendable(error)),
            Err(error) => (None, None, error.without_url().to_string()),
        })
    }

    /// The URL of a path at the next gateway.
    pub(super) fn url(&self, path: &str) -> Option<String> {
        let urls = &self.shared.urls;
        let next = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let url = urls.get(next.checked_rem(urls.len())?)?;
        Some(format!("{url}{path}"))
    }

    pub(super) fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.shared.token {
            Some(token) => request.header(AUTHORIZATION, token.clone()),
            None => request,
        }
    }
}

/// The text as a string of a structured field (RFC 9651, 4.1.6).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', r#"\""#))
}

/// A client that follows no redirects: a post that is sent elsewhere may be accepted there, too.
fn http_client() -> reqwest::Client {
    let builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT);
    builder.build().unwrap_or_default()
}

/// Whether the event may have been accepted after all.
fn is_uncertain(status: Option<u16>) -> bool {
    // 501: the gateway cannot do what was asked, and did not begin.
    status.is_none_or(|status| status >= 500 && status != 501)
}

/// The error of a request that cannot be built, such as an impossible URL or header.
pub(super) fn unsendable(error: reqwest::Error) -> ClientError {
    ClientError::Invalid(format!(
        "the request cannot be built: {}",
        error.without_url()
    ))
}

fn final_answer(status: u16, answer: &str, attempts: u32) -> Result<Posted, ClientError> {
    if status != ACCEPTED {
        let problem = answer.to_owned();
        return Err(ClientError::Refused { status, problem });
    }
    let mut posted: Posted =
        serde_json::from_str(answer).map_err(|error| ClientError::Invalid(error.to_string()))?;
    posted.attempts = attempts;
    Ok(posted)
}

/// Whole seconds, as the gateway sends them, at least 1. A date, as a balancer may send it, is
/// ignored.
pub(super) fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    let seconds: u32 = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(u64::from(seconds.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_can_be_a_key() {
        for (text, expected) in [
            ("8e03978e", r#""8e03978e""#),
            ("a b", r#""a b""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            (r#"\""#, r#""\\\"""#),
        ] {
            assert_eq!(quoted(text), expected, "{text}");
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_and_never_zero() {
        for (text, seconds) in [("0", Some(1)), ("7", Some(7)), ("soon", None), ("-1", None)] {
            let value = HeaderValue::from_static(text);
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(Some(&value)), expected, "{text}");
        }
        assert_eq!(retry_after(None), None);
    }

    #[test]
    fn only_a_clear_answer_tells_that_nothing_was_accepted() {
        for (status, expected) in [
            (None, true),
            (Some(500), true),
            (Some(503), true),
            (Some(501), false),
            (Some(409), false),
            (Some(422), false),
        ] {
            assert_eq!(is_uncertain(status), expected, "{status:?}");
        }
    }

    #[test]
    fn the_earliest_cursor_is_that_of_a_stream_that_is_gone() {
        let problem = r#"{"type": "/problems/gone", "earliest": "AQEL"}"#;
        for (status, problem, expected) in [
            (410, problem, Some("AQEL")),
            (410, "{}", None),
            (410, "gone", None),
            (404, problem, None),
        ] {
            let problem = problem.to_owned();
            let refused = ClientError::Refused { status, problem };
            assert_eq!(refused.earliest_cursor().as_deref(), expected, "{refused}");
        }
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_built_is_not_repeated() {
        let within = Duration::from_secs(60);
        for url in [&[][..], &["no url"][..]] {
            let client = Client::new(url.iter().copied());
            let posted = client.post("/orders", &1, "key", within).await;
            let refused = posted.expect_err("nothing can be sent");
            assert!(matches!(refused, ClientError::Invalid(_)), "{refused}");
        }
    }
}
