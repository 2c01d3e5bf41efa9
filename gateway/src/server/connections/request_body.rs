//! The body of a request, which notes whether it was read to its end.

use super::activity::Activity;
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The body of a request as HTTP reads it.
#[derive(Debug)]
pub(super) struct RequestBody {
    inner: Incoming,
    activity: Arc<Activity>,
    is_over: bool,
}

impl RequestBody {
    /// The body for a handler. One that is empty needs no note.
    pub(super) fn wrap(inner: Incoming, activity: &Arc<Activity>) -> Body {
        if inner.is_end_stream() {
            return Body::new(inner);
        }
        Body::new(Self {
            inner,
            activity: Arc::clone(activity),
            is_over: false,
        })
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) {
            this.is_over = true;
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.is_over && !self.inner.is_end_stream() {
            self.activity.left_unread();
        }
    }
}
