//! The body of an answer, which counts its request until it is written or given up.

use super::activity::Activity;
use axum::body::{Body, Bytes, HttpBody};
use hyper::Version;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;

/// The most bytes of a part. HTTP takes over a whole part as soon as there is room for one byte.
const PART_BYTES_MAX: usize = 16 << 10;

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
/// for, it waits to be written; so does the head of the answer. A body that is dropped while a part
/// waits says nothing of the client, which may have reset its request.
///
/// In HTTP/2, heads need no room, and hyper takes over a part when there is room for one byte of
/// it. So parts are small, and the last byte of the first frame is a part of its own: the request
/// for what comes behind it proves that there was room for all bytes before it. That request comes
/// only as no end of the stream is announced. Otherwise hyper drops the body with the last part,
/// whether there was room for it or the client reset its request.
#[derive(Debug)]
pub(super) struct CountedBody {
    inner: Body,
    guard: RequestGuard,
    version: Version,
    /// What is left of the frame that is being handed out.
    rest: Bytes,
    /// Whether bytes were handed out.
    is_begun: bool,
    /// Whether the last byte of the frame is a part of its own.
    keeps_last_byte: bool,
    /// Whether the request for the next part proves that the client reads.
    proves_room: bool,
}

impl CountedBody {
    /// The body of an answer in this version of HTTP.
    pub(super) fn new(inner: Body, mut guard: RequestGuard, version: Version) -> Self {
        guard.part_waits();
        Self {
            inner,
            guard,
            version,
            rest: Bytes::new(),
            is_begun: false,
            keeps_last_byte: version == Version::HTTP_2,
            proves_room: false,
        }
    }

    /// Notes what the request for the next part says of the one before.
    fn note_asked(&mut self) {
        match std::mem::take(&mut self.proves_room) {
            true => self.guard.part_written(),
            // The client has the head, and perhaps waits.
            false => self.guard.part_given_up(),
        }
    }

    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_part()))))
    }

    /// The next part of the frame.
    fn next_part(&mut self) -> Bytes {
        let kept = usize::from(self.keeps_last_byte && self.rest.len() > 1);
        let part_len = (self.rest.len() - kept).min(PART_BYTES_MAX);
        let part = self.rest.split_to(part_len);
        if !part.is_empty() {
            // Room for one byte of the first part is not enough.
            self.proves_room = self.is_begun || part.len() == 1;
            self.is_begun = true;
            self.keeps_last_byte &= !self.rest.is_empty();
        }
        part
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
        this.note_asked();
        let polled = this.poll_part(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            this.guard.part_waits();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let must_be_asked = self.version == Version::HTTP_2 && self.is_begun;
        !must_be_asked && self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let mut hint = self.inner.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
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

    const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

    fn open(activity: &Arc<Activity>, body: Body, version: Version) -> CountedBody {
        let guard = RequestGuard::start(Arc::clone(activity), Some(0));
        CountedBody::new(body, guard, version)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_asked_for_waits() {
        let limits = ConnectionLimits::default();
        for version in VERSIONS {
            let activity = Arc::new(Activity::new(Instant::now()));
            let verdict = || activity.verdict(&limits, Instant::now() + limits.write_stalled_max);
            let guard = RequestGuard::start(Arc::clone(&activity), Some(0));
            assert_eq!(verdict(), None, "the handler works");
            let part = stream::once(async { Ok::<_, Infallible>("p") });
            let inner = Body::from_stream(part.chain(stream::pending()));
            let mut body = CountedBody::new(inner, guard, version);
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
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_answer_that_was_taken_over_counts_as_read() {
        let limits = ConnectionLimits::default();
        let max = limits.write_stalled_max;
        let silent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        for (name, second, polls, expected) in [
            ("reset before it began", silent, 0, true),
            ("empty", Body::empty(), 0, true),
            ("reset without room", Body::from("answer"), 1, true),
            ("room for a byte", Body::from("answer"), 2, true),
            ("room for all", Body::from("answer"), 3, false),
            ("room for its only byte", Body::from("a"), 2, false),
        ] {
            let activity = Arc::new(Activity::new(Instant::now()));
            let first = open(&activity, Body::from("never read"), Version::HTTP_2);
            tokio::time::advance(max / 2).await;
            let mut second = open(&activity, second, Version::HTTP_2);
            for _ in 0..polls {
                let polled = second.frame().await;
                assert!(polled.is_none_or(|frame| frame.is_ok()), "{name}");
            }
            drop(second);
            tokio::time::advance(max / 2).await;
            let found = activity.verdict(&limits, Instant::now());
            assert_eq!(found == Some(CloseReason::SlowReader), expected, "{name}");
            drop(first);
        }
    }

    #[tokio::test]
    async fn a_large_frame_is_handed_out_in_parts() {
        let whole = vec![b'a'; 2 * PART_BYTES_MAX + 5];
        let large = PART_BYTES_MAX;
        for (version, expected) in [
            (Version::HTTP_11, vec![large, large, 5, 2]),
            (Version::HTTP_2, vec![large, large, 4, 1, 2]),
        ] {
            let activity = Arc::new(Activity::new(Instant::now()));
            let frames = [Bytes::from(whole.clone()), Bytes::from_static(b"bc")];
            let frames = frames.map(Ok::<_, Infallible>);
            let mut body = open(&activity, Body::from_stream(stream::iter(frames)), version);
            let mut lengths = Vec::new();
            while let Some(frame) = body.frame().await {
                let data = frame.expect("no error").into_data().expect("data");
                lengths.push(data.len());
            }
            assert_eq!(lengths, expected, "{version:?}");
        }
    }

    #[tokio::test]
    async fn the_end_and_the_rest_of_an_answer_are_known() {
        let whole = PART_BYTES_MAX as u64 + 5;
        for version in VERSIONS {
            let activity = Arc::new(Activity::new(Instant::now()));
            let inner = Body::from(vec![b'a'; PART_BYTES_MAX + 5]);
            let mut body = open(&activity, inner, version);
            let mut left = whole;
            loop {
                assert_eq!(body.size_hint().exact(), Some(left), "{version:?}");
                // HTTP/2 is to ask once more, after the last byte has room.
                let is_end = left == 0 && version == Version::HTTP_11;
                assert_eq!(body.is_end_stream(), is_end, "{version:?} {left}");
                let Some(frame) = body.frame().await else {
                    break;
                };
                let data = frame.expect("no error").into_data().expect("data");
                left -= data.len() as u64;
            }
            assert_eq!(left, 0, "{version:?}");
            assert!(open(&activity, Body::empty(), version).is_end_stream());
        }
    }
}
