//! How long a handler may take, without what it waits for outside: its turn at the store, the commit, acknowledgements.
//!
//! Those have limits of their own, which are outages. A handler, its layers included, is what runs while nothing of the kind is
//! waited for. The parts that wait say so by [`outside`] to whoever polls them on the same thread.

use super::{Delivery, Outcome};
use futures_util::future::Either;
use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep, sleep};

thread_local! {
    /// Whether the future that was polled last on this thread waits outside of its handler.
    static IS_OUTSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Waits for something that is not the handler's: its time does not run meanwhile.
pub(crate) async fn outside<F: Future>(wait: F) -> F::Output {
    let mut wait = pin!(wait);
    poll_fn(|cx| {
        let polled = wait.as_mut().poll(cx);
        IS_OUTSIDE.set(polled.is_pending());
        polled
    })
    .await
}

/// The handler took longer than it may.
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

/// Ends `handled` when it has run for `limit`. It is dropped then, so that it goes no further.
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
        // One that is ready at its first poll reads no clock.
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

/// A handler service that ends what takes too long.
#[derive(Clone)]
pub(crate) struct Limited<H> {
    handler: H,
    limit: Option<Duration>,
}

impl<H> Limited<H> {
    /// Lets each attempt take as long as `limit`; for ever without one.
    pub(crate) fn new(handler: H, limit: Option<Duration>) -> Self {
        Self { handler, limit }
    }
}

type Cut<F> = Pin<Box<dyn Future<Output = <F as Future>::Output> + Send>>;

impl<H> tower::Service<Delivery> for Limited<H>
where
    H: tower::Service<Delivery, Response = Outcome>,
    H::Future: Send + 'static,
    H::Error: 'static,
{
    type Response = Outcome;
    type Error = H::Error;
    type Future = Either<H::Future, Cut<H::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), H::Error>> {
        self.handler.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let handled = self.handler.call(delivery);
        match self.limit {
            None => Either::Left(handled),
            Some(limit) => Either::Right(Box::pin(async move {
                match limited(handled, limit).await {
                    Ok(outcome) => outcome,
                    Err(error) => Ok(Outcome::Retry(error.into())),
                }
            })),
        }
    }
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
    async fn what_is_waited_for_outside_does_not_count_and_what_is_before_and_after_does() {
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
    async fn who_waits_outside_on_the_same_thread_stops_no_other_clock() {
        let waits = limited(outside(seconds(60)), LIMIT);
        let hangs = limited(seconds(60), LIMIT);
        let alone = outside(seconds(60));
        let (waits, hangs, ()) = tokio::join!(waits, hangs, alone);
        assert_eq!((waits, hangs), (Ok(()), Err(TooSlow(LIMIT))));
    }
}
