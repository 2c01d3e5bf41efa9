//! Limits the time of a handler, without the time it waits outside of its own code: for its turn at
//! the store, for the commit and for acknowledgements.
//!
//! Those waits have limits of their own and fail as outages. The handler's time, including its
//! layers, runs while it waits for none of them. Code that waits outside marks the wait with
//! [`outside`], which is visible to the future that polls it on the same thread.
//!
//! The mark is a thread-local and not an argument, because layers of the service stand between
//! [`limited`] and [`outside`], and they pass nothing on. It is reset before each poll and read
//! after it, so that a mark of another record on the same thread has no effect. A handler that
//! polls several futures at once, one of them outside, counts as what was polled last.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

thread_local! {
    /// Whether the future polled last on this thread waits outside of its handler.
    static IS_OUTSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Awaits a future that is not part of the handler: the handler's time does not run meanwhile.
pub(crate) async fn outside<F: Future>(wait: F) -> F::Output {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        IS_OUTSIDE.set(polled.is_pending());
        polled
    })
    .await
}

/// The handler exceeded its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow(Duration);

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the handler took longer than {:?} (handler_timeout)",
            self.0
        )
    }
}

impl std::error::Error for TooSlow {}

/// Drops `handled` when it has run for `limit`, so that it runs no further. A future that is ready
/// at its first poll starts no timer. Cancel-safe in so far as dropping it drops `handled`.
pub(crate) async fn limited<F: Future>(handled: F, limit: Duration) -> Result<F::Output, TooSlow> {
    let mut handled = pin!(handled);
    let mut deadline = pin!(None::<Sleep>);
    let (mut used, mut since) = (Duration::ZERO, None::<Instant>);
    poll_fn(move |cx| {
        IS_OUTSIDE.set(false);
        if let Poll::Ready(output) = handled.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if IS_OUTSIDE.replace(false) {
            if let Some(since) = since.take() {
                used += since.elapsed();
                deadline.set(None);
            }
            return Poll::Pending;
        }
        // A future that is ready at its first poll reads no clock.
        if since.is_none() {
            since = Some(Instant::now());
            deadline.set(Some(sleep(limit.saturating_sub(used))));
        }
        match deadline.as_mut().as_pin_mut() {
            Some(deadline) => deadline.poll(cx).map(|()| Err(TooSlow(limit))),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn seconds(seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_is_ended_when_its_time_is_up() {
        let began = Instant::now();
        assert_eq!(limited(seconds(60), LIMIT).await, Err(TooSlow(LIMIT)));
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(limited(seconds(4), LIMIT).await, Ok(()));
        assert_eq!(limited(std::future::ready(7), Duration::ZERO).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_handlers_own_time_counts() {
        let of = |before, waits, after| async move {
            seconds(before).await;
            outside(seconds(waits)).await;
            seconds(after).await;
        };
        assert_eq!(limited(of(2, 600, 2), LIMIT).await, Ok(()));
        assert_eq!(limited(of(0, 600, 0), LIMIT).await, Ok(()));
        let began = Instant::now();
        assert_eq!(limited(of(2, 600, 60), LIMIT).await, Err(TooSlow(LIMIT)));
        assert_eq!(began.elapsed(), Duration::from_secs(605));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outside_wait_stops_no_other_handlers_clock() {
        let waits = limited(outside(seconds(60)), LIMIT);
        let hangs = limited(seconds(60), LIMIT);
        let alone = outside(seconds(60));
        let (waits, hangs, ()) = tokio::join!(waits, hangs, alone);
        assert_eq!((waits, hangs), (Ok(()), Err(TooSlow(LIMIT))));
    }
}
