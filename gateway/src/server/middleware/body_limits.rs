//! Bounds the body of a request: its size, and the time that it takes to arrive.
//!
//! Owns both bounds. A handler sees a body that fails; the answer to the caller is a problem of
//! this file, whatever the handler made of the failure.

use crate::http::{Problem, ProblemKind};
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep_until};

/// The longest time of a body, whatever its rate is.
const BODY_TIME_MAX: Duration = Duration::from_secs(120);

/// The bounds of a request's body. [`BodyLimits::default`] has the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct BodyLimits {
    /// The most bytes. Default 4 MiB. A larger body is refused with 413: at once if the request
    /// declares its length, otherwise when the bound is reached.
    pub bytes_max: u64,
    /// How long a body may take. Default 30 s. A slower one continues as long as it arrives at
    /// [`bytes_per_second_min`](Self::bytes_per_second_min) on average, for 120 s at most. Then
    /// 408.
    pub within: Duration,
    /// The rate that a body must have after [`within`](Self::within). Default 1 KiB per second.
    pub bytes_per_second_min: u32,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            bytes_max: 4 << 20,
            within: Duration::from_secs(30),
            bytes_per_second_min: 1 << 10,
        }
    }
}

impl BodyLimits {
    /// Sets the most bytes.
    pub fn with_bytes_max(mut self, bytes_max: u64) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// Sets how long a body may take.
    pub fn with_within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Sets the rate that a slow body must have, at least 1 byte per second.
    pub fn with_bytes_per_second_min(mut self, bytes: u32) -> Self {
        self.bytes_per_second_min = bytes.max(1);
        self
    }

    /// The time that a body has after so many bytes.
    fn time_for(&self, received: u64) -> Duration {
        let at_rate = received as f64 / f64::from(self.bytes_per_second_min.max(1));
        let at_rate = Duration::from_secs_f64(at_rate).min(BODY_TIME_MAX);
        self.within.max(at_rate)
    }
}

/// What was wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum BodyFault {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body arrives too slowly")]
    TooSlow,
}

impl BodyFault {
    fn answer(self, limits: &BodyLimits) -> Response {
        match self {
            Self::TooLarge => {
                let detail = format!("a body has at most {} bytes", limits.bytes_max);
                let problem = Problem::new(ProblemKind::TooLarge, detail);
                problem
                    .with_member("maxBytes", limits.bytes_max)
                    .into_response()
            }
            Self::TooSlow => {
                let detail = "the body did not arrive in time; nothing was accepted";
                Problem::new(ProblemKind::SlowBody, detail).into_response()
            }
        }
    }
}

/// Refuses or bounds the body.
pub(super) async fn limit_body<F>(
    limits: BodyLimits,
    request: Request,
    next: impl FnOnce(Request<LimitedBody>) -> F,
) -> Response
where
    F: Future<Output = Response>,
{
    let declared = request.body().size_hint().lower();
    if declared > limits.bytes_max {
        return BodyFault::TooLarge.answer(&limits);
    }
    if request.body().is_end_stream() {
        return next(request.map(|body| LimitedBody::new(body, limits, None))).await;
    }
    let is_grpc = is_grpc(request.headers());
    let fault = Arc::new(OnceLock::new());
    let seen = Some(Arc::clone(&fault));
    let request = request.map(|body| LimitedBody::new(body, limits, seen));
    let response = next(request).await;
    match fault.get() {
        // A call of gRPC has its error in the trailers, with HTTP status 200.
        Some(fault) if !is_grpc && !response.status().is_success() => fault.answer(&limits),
        _ => response,
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// A body that fails when it exceeds a bound.
pub(in crate::server) struct LimitedBody {
    inner: Body,
    limits: BodyLimits,
    received: u64,
    /// When the handler began to wait for it.
    begun: Option<Instant>,
    /// Made when the handler has to wait, and set anew only if it has to wait again.
    timer: Option<Pin<Box<Sleep>>>,
    /// None for a body that is empty.
    fault: Option<Arc<OnceLock<BodyFault>>>,
}

impl LimitedBody {
    fn new(inner: Body, limits: BodyLimits, fault: Option<Arc<OnceLock<BodyFault>>>) -> Self {
        Self {
            inner,
            limits,
            received: 0,
            begun: None,
            timer: None,
            fault,
        }
    }

    /// The body as a handler of axum reads it. One that is empty needs no bounds.
    pub(super) fn into_body(self) -> Body {
        match self.fault {
            Some(_) => Body::new(self),
            None => self.inner,
        }
    }

    /// Waits for the time at which the body is too slow.
    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let ends = begun + self.limits.time_for(self.received);
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(ends)));
        if timer.deadline() != ends {
            timer.as_mut().reset(ends);
        }
        timer.as_mut().poll(cx)
    }

    fn fail<T>(&self, fault: BodyFault) -> Poll<Option<Result<T, axum::Error>>> {
        if let Some(first) = &self.fault {
            // The first fault counts.
            let _ = first.set(fault);
        }
        Poll::Ready(Some(Err(axum::Error::new(fault))))
    }
}

impl HttpBody for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.received += length;
                if this.received > this.limits.bytes_max {
                    return this.fail(BodyFault::TooLarge);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Pending if this.poll_too_slow(cx).is_ready() => this.fail(BodyFault::TooSlow),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::http::StatusCode;
    use axum::middleware::{Next, from_fn};
    use axum::routing::{MethodRouter, post};
    use futures_util::stream;
    use http_body_util::BodyExt;
    use std::convert::Infallible;
    use tower::ServiceExt;

    async fn read(body: Body) -> StatusCode {
        match body.collect().await {
            Ok(_) => StatusCode::OK,
            Err(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// A route whose bodies have these bounds.
    fn router(route: MethodRouter, limits: BodyLimits) -> Router {
        let layer = from_fn(move |request: Request, next: Next| {
            limit_body(limits, request, |request| {
                next.run(request.map(LimitedBody::into_body))
            })
        });
        Router::new().route("/", route).layer(layer)
    }

    /// The status for a body of `chunks` of this many bytes, each after `pause`.
    async fn check(chunks: usize, bytes: usize, pause: Duration, expected: u16) {
        let limits = BodyLimits::default().with_bytes_max(100_000);
        let router = router(post(read), limits);
        let body = stream::unfold(0, move |sent| async move {
            if sent == chunks {
                return None;
            }
            tokio::time::sleep(pause).await;
            Some((Ok::<_, Infallible>(vec![0_u8; bytes]), sent + 1))
        });
        let request = axum::http::Request::post("/").body(Body::from_stream(body));
        let request = request.expect("a request");
        let response = router.oneshot(request).await.expect("it is infallible");
        assert_eq!(response.status(), expected, "{chunks} chunks of {bytes}");
    }

    #[tokio::test(start_paused = true)]
    async fn large_and_slow_bodies_are_refused() {
        let second = Duration::from_secs(1);
        check(1, 1, Duration::ZERO, 200).await;
        check(10, 10_000, Duration::ZERO, 200).await;
        check(11, 10_000, Duration::ZERO, 413).await;
        check(29, 1, second, 200).await;
        check(60, 1, second, 408).await;
        check(60, 1_100, second, 200).await;
        check(1, 1, second * 31, 408).await;
    }

    #[test]
    fn no_rate_prolongs_a_body_for_ever() {
        let limits = BodyLimits::default();
        for (received, seconds) in [(0, 30), (60 << 10, 60), (4 << 20, 120), (u64::MAX, 120)] {
            let time = limits.time_for(received);
            assert_eq!(time, Duration::from_secs(seconds), "{received}");
        }
    }

    #[tokio::test]
    async fn a_declared_length_is_refused_before_the_body() {
        let limits = BodyLimits::default().with_bytes_max(10);
        let router = router(post(async || StatusCode::OK), limits);
        let request = axum::http::Request::post("/").body(Body::from(vec![0; 11]));
        let request = request.expect("a request");
        let response = router.oneshot(request).await.expect("it is infallible");
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
