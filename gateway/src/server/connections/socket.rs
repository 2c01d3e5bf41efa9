//! The socket of a connection: notes what arrives and what waits, and holds the connection's place.
//!
//! Knows bytes only. It moves to the task of a WebSocket with its connection's place, so that a
//! WebSocket counts as an open connection.
//!
//! **Lingering close.** A socket that is closed with unread bytes, or gets some later, is reset by
//! the kernel, and a reset can destroy an answer that the client has not read. After an answer that
//! came before the end of its request, the socket is closed for writing, and what still arrives is
//! read and discarded: [`LINGER_BYTES_MAX`] bytes, or [`LINGER_MAX`], or up to the client's close.

use super::open::Admitted;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The most bytes that are discarded after an early answer.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// The longest time for which bytes are discarded.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// A socket, or a TLS session on one, with the place of its connection.
#[derive(Debug)]
pub(super) struct Socket<T> {
    inner: T,
    admitted: Admitted,
    /// Set when it was closed for writing.
    linger: Option<Linger>,
}

/// What may still be read and discarded.
#[derive(Debug)]
struct Linger {
    bytes_left: usize,
    ends: Pin<Box<Sleep>>,
}

impl<T> Socket<T> {
    pub(super) fn new(inner: T, admitted: Admitted) -> Self {
        Self {
            inner,
            admitted,
            linger: None,
        }
    }

    /// Notes the result of a write or a flush.
    fn note<R>(&self, poll: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        self.admitted
            .activity
            .wrote(poll.is_ready(), Instant::now());
        poll
    }
}

impl Linger {
    fn start() -> Self {
        Self {
            bytes_left: LINGER_BYTES_MAX,
            ends: Box::pin(sleep(LINGER_MAX)),
        }
    }

    /// Reads and discards until a bound, the client's close or a failure.
    fn poll_discard<T: AsyncRead + Unpin>(
        &mut self,
        inner: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut space = [0_u8; 4 << 10];
        while self.bytes_left > 0 && self.ends.as_mut().poll(cx).is_pending() {
            let mut buf = ReadBuf::new(&mut space);
            let read = ready!(Pin::new(&mut *inner).poll_read(cx, &mut buf));
            let length = buf.filled().len();
            if read.is_err() || length == 0 {
                break;
            }
            self.bytes_left = self.bytes_left.saturating_sub(length);
        }
        Poll::Ready(())
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

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<T> {
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
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            if !this.admitted.activity.may_still_send() {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::start);
        linger.poll_discard(&mut this.inner, cx).map(Ok)
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
