//! The socket of a connection: notes what arrives and what waits, and holds the connection's place.
//!
//! Knows bytes only. It moves to the task of a WebSocket with its connection's place, so that a
//! WebSocket counts as an open connection.

use super::open::Admitted;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A socket, or a TLS session on one, with the place of its connection.
#[derive(Debug)]
pub(super) struct Socket<T> {
    inner: T,
    admitted: Admitted,
}

impl<T> Socket<T> {
    pub(super) fn new(inner: T, admitted: Admitted) -> Self {
        Self { inner, admitted }
    }

    /// Notes the result of a write or a flush.
    fn note<R>(&self, poll: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.admitted
            .activity
            .wrote(poll.is_ready(), Instant::now());
        poll
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Socket<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let poll = Pin::new(&mut this.inner).poll_read(cx, buf);
        let received = buf.filled().get(before..).unwrap_or_default();
        this.admitted.activity.received(received, Instant::now());
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Socket<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.note(poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_flush(cx);
        // HTTP flushes only after it has written everything, so a flush that is ready is progress.
        this.note(poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let poll = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.note(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
