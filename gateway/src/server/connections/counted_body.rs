//! The body of an answer, which counts its request until it is written or given up.

use super::activity::Activity;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;

/// A request under way. Its end is noted when this is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard {
    activity: Arc<Activity>,
    /// Whether a part of its answer waits to be written.
    waits: bool,
}

impl RequestGuard {
    /// Notes the start of a request. Without `body_len` its body is sent in chunks.
    pub(super) fn start(activity: Arc<Activity>, body_len: Option<u64>) -> Self {
        activity.request_started(body_len);
        Self {
            activity,
            waits: false,
        }
    }

    /// Notes that a part of the answer waits to be written. HTTP asks for the next one when there
    /// is room for it.
    fn part_waits(&mut self) {
        if !self.waits {
            self.waits = true;
            self.activity.part_waits(Instant::now());
        }
    }

    fn part_written(&mut self) {
        if self.waits {
            self.waits = false;
            self.activity.part_written();
        }
    }

    /// Notes that nothing waits any more, which says nothing of the client.
    fn part_given_up(&mut self) {
        if self.waits {
            self.waits = false;
            self.activity.part_given_up();
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.part_given_up();
        self.activity.request_ended(Instant::now());
    }
}

/// A body with the guard of its request. From when a part is handed out until the next one is asked
/// for, it waits to be written; so does the head of the answer. The last one is written when the
/// body is dropped: HTTP has taken it over. One that is dropped before was given up.
///
/// The first part is no sign of a client that reads: in HTTP/2 heads need no room, and hyper asks
/// for the part behind one before there is room for it.
#[derive(Debug)]
pub(super) struct CountedBody {
    inner: Body,
    guard: RequestGuard,
    /// Whether a part was asked for.
    is_begun: bool,
    /// Whether trailers were handed out. Nothing comes after them.
    has_trailers: bool,
}

impl CountedBody {
    pub(super) fn new(inner: Body, mut guard: RequestGuard) -> Self {
        guard.part_waits();
        Self {
            inner,
            guard,
            is_begun: false,
            has_trailers: false,
        }
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if self.has_trailers || self.inner.is_end_stream() {
            self.guard.part_written();
        }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.is_begun {
            this.guard.part_written();
        }
        this.is_begun = true;
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.has_trailers = frame.is_trailers();
                this.guard.part_waits();
            }
            // The client has the head, and waits.
            _ => this.guard.part_given_up(),
        }
        polled
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
    use super::super::activity::CloseReason;
    use super::super::limits::ConnectionLimits;
    use super::*;
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;
    use std::convert::Infallible;

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_asked_for_waits() {
        let limits = ConnectionLimits::default();
        let activity = Arc::new(Activity::new(Instant::now()));
        let verdict = || activity.verdict(&limits, Instant::now() + limits.write_stalled_max);
        let guard = RequestGuard::start(Arc::clone(&activity), Some(0));
        assert_eq!(verdict(), None, "the handler works");
        let part = stream::once(async { Ok::<_, Infallible>("part") });
        let inner = Body::from_stream(part.chain(stream::pending()));
        let mut body = CountedBody::new(inner, guard);
        assert_eq!(verdict(), Some(CloseReason::SlowReader), "never read");
        let frame = body.frame().await.expect("a part");
        assert!(frame.is_ok());
        assert_eq!(verdict(), Some(CloseReason::SlowReader), "read once");
        let next = tokio::time::timeout(limits.head_within, body.frame()).await;
        assert!(next.is_err(), "there is none yet");
        assert_eq!(verdict(), None, "the client waits for the next part");
        drop(body);
        assert_eq!(activity.requests(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_was_taken_over_counts_as_read() {
        let limits = ConnectionLimits::default();
        let max = limits.write_stalled_max;
        for (second, expected) in [
            // Its client reset it.
            (
                Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()),
                true,
            ),
            (Body::empty(), false),
        ] {
            let activity = Arc::new(Activity::new(Instant::now()));
            let open = |body| {
                let guard = RequestGuard::start(Arc::clone(&activity), Some(0));
                CountedBody::new(body, guard)
            };
            let first = open(Body::from("never read"));
            tokio::time::advance(max / 2).await;
            drop(open(second));
            tokio::time::advance(max / 2).await;
            let found = activity.verdict(&limits, Instant::now());
            assert_eq!(found == Some(CloseReason::SlowReader), expected);
            drop(first);
        }
    }
}
