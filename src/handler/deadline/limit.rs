//! Limits the time of a handler, without the time it waits outside of its own code: for its turn at
//! the store, for the commit and for acknowledgements.
//!
//! Those waits have limits of their own and fail as outages. The handler's time, including its
//! layers, runs only while it waits for none of them. Code that waits outside marks the wait with
//! [`outside_handler_time`], which the future that polls it on the same thread sees.
//!
//! The mark is a thread-local and not an argument: layers of the service are called between
//! [`with_time_limit`] and [`outside_handler_time`], and they pass no argument on. The mark is
//! reset before each poll and read after it, so that a mark of another record on the same thread
//! has no effect. If a handler polls several futures at once, the one polled last decides.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

thread_local! {
    /// Whether the future polled last on this thread waits outside of its handler.
    static IS_OUTSIDE_HANDLER: Cell<bool> = const { Cell::new(false) };
}

/// Awaits a future that is not part of the handler: the handler's time does not run meanwhile.
pub(crate) async fn outside_handler_time<F: Future>(wait: F) -> F::Output {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        IS_OUTSIDE_HANDLER.set(polled.is_pending());
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
pub(crate) async fn with_time_limit<F: Future>(
    handled: F,
    limit: Duration,
) -> Result<F::Output, TooSlow> {
    let mut handled = pin!(handled);
    let mut deadline = pin!(None::<Sleep>);
    let (mut used, mut since) = (Duration::ZERO, None::<Instant>);
    poll_fn(move |cx| {
        IS_OUTSIDE_HANDLER.set(false);
        if let Poll::Ready(output) = handled.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if IS_OUTSIDE_HANDLER.replace(false) {
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
        assert_eq!(
            with_time_limit(seconds(60), LIMIT).await,
            Err(TooSlow(LIMIT))
        );
        assert_eq!(began.elapsed(), LIMIT);
        assert_eq!(with_time_limit(seconds(4), LIMIT).await, Ok(()));
        assert_eq!(
            with_time_limit(std::future::ready(7), Duration::ZERO).await,
            Ok(7)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_handlers_own_time_counts() {
        let of = |before, waits, after| async move {
            seconds(before).await;
            outside_handler_time(seconds(waits)).await;
            seconds(after).await;
        };
        assert_eq!(with_time_limit(of(2, 600, 2), LIMIT).await, Ok(()));
        assert_eq!(with_time_limit(of(0, 600, 0), LIMIT).await, Ok(()));
        let began = Instant::now();
        assert_eq!(
            with_time_limit(of(2, 600, 60), LIMIT).await,
            Err(TooSlow(LIMIT))
        );
        assert_eq!(began.elapsed(), Duration::from_secs(605));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outside_wait_stops_no_other_handlers_clock() {
        let waits = with_time_limit(outside_handler_time(seconds(60)), LIMIT);
        let hangs = with_time_limit(seconds(60), LIMIT);
        let alone = outside_handler_time(seconds(60));
        let (waits, hangs, ()) = tokio::join!(waits, hangs, alone);
        assert_eq!((waits, hangs), (Ok(()), Err(TooSlow(LIMIT))));
    }
}
