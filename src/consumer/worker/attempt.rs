//! The attempt of a record whose handler was not ready at its first poll.
//!
//! Owns the future of the attempt or of the retry. A panic of the service's code, also in a drop,
//! becomes an outcome here and never ends the worker.
//!
//! # Panics
//!
//! `catch_unwind` surrounds every call into code of the service: the call and the poll of the
//! handler, the drop of its future, the conversion and the display of its error. A first panic
//! dead-letters the record. A panic while that is done, which is a bug of this library, ends the
//! run: the lane must not stop unnoticed. A value that was unwound is not used again, except for a
//! slot, which is emptied first.
//!
//! | panics | record | run |
//! |---|---|---|
//! | call or poll of the handler | dead-lettered | continues |
//! | drop of its future | dead-lettered | continues |
//! | conversion of a layer's error | dead-lettered | continues |
//! | in a retry, other than its attempt | dead-lettered | continues |
//! | while its dead letter is written | kept unsettled | ends |

use crate::consumer::state::lanes::LaneId;
use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::settlement::{Settlement, Verdict};
use crate::consumer::worker::item::Item;
use crate::consumer::worker::retry::RetryFuture;
use crate::event::Record;
use crate::failure::panics::{caught, drop_caught};
use crate::handler::{DeadReason, HandlerError, Outcome};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// A slot for the future of a first attempt. Slots are reused.
pub(crate) type AttemptSlot<F> = Pin<Box<Option<F>>>;

/// A running record.
///
/// As a future it ends with the record: settled, or with the reason why it is not.
pub(crate) struct Running<F> {
    /// None after it has finished.
    item: Option<Item>,
    /// The lane that it occupies.
    lane: LaneId,
    attempt: Attempt<F>,
    /// When its first attempt began.
    started_at: Instant,
}

/// What runs for the record. Replaced by `Ended` before its future is dropped, so that a panic in
/// the drop cannot drop it twice.
enum Attempt<F> {
    /// The first attempt.
    First(AttemptSlot<F>),
    /// Its retry, with all further attempts.
    Retrying(RetryFuture),
    /// The dead letter of a record whose retry panicked.
    DeadLettering(RetryFuture),
    /// Nothing. The future returns pending if it is polled again.
    Ended,
}

/// Why a record is not settled although its future ended.
///
/// All three keep the lane occupied.
pub(crate) enum Unsettled {
    /// It needs a retry or a dead letter.
    Failed(Outcome),
    /// Its retry panicked. It must be dead-lettered.
    Panicked(DeadReason),
    /// Writing its dead letter panicked, which is a bug of this library.
    Lost(DeadReason),
}

/// A record whose future ended: finished, or in need of a retry or a dead letter (`verdict` is an
/// error).
pub(crate) struct Finished<F> {
    pub(crate) item: Item,
    pub(crate) lane: LaneId,
    pub(crate) started_at: Instant,
    pub(crate) verdict: Result<Verdict, Unsettled>,
    /// The first attempt's slot, empty again.
    pub(crate) slot: Option<AttemptSlot<F>>,
}

impl<F> Running<F> {
    /// A first attempt that was polled and is not ready.
    pub(crate) fn first(
        item: Item,
        lane: LaneId,
        slot: AttemptSlot<F>,
        started_at: Instant,
    ) -> Self {
        Self {
            item: Some(item),
            lane,
            attempt: Attempt::First(slot),
            started_at,
        }
    }

    /// A record that failed and is being retried.
    pub(crate) fn retrying(
        item: Item,
        lane: LaneId,
        retrying: RetryFuture,
        started_at: Instant,
    ) -> Self {
        Self {
            item: Some(item),
            lane,
            attempt: Attempt::Retrying(retrying),
            started_at,
        }
    }

    /// A record that is dead-lettered because its retry panicked.
    pub(crate) fn dead_lettering(
        item: Item,
        lane: LaneId,
        dead_lettering: RetryFuture,
        started_at: Instant,
    ) -> Self {
        Self {
            item: Some(item),
            lane,
            attempt: Attempt::DeadLettering(dead_lettering),
            started_at,
        }
    }

    /// The epoch of the record. None after it has finished.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.item.as_ref().map(|item| item.partition.epoch)
    }

    /// The record. None after it has finished.
    pub(crate) fn record(&self) -> Option<&Record> {
        self.item.as_ref().map(|item| &item.record)
    }

    /// The record, to be replaced by a copy of itself.
    pub(crate) fn record_mut(&mut self) -> Option<&mut Record> {
        self.item.as_mut().map(|item| &mut item.record)
    }

    /// Since when its handler has been running. None while the record waits between attempts or for
    /// its dead letter.
    pub(crate) fn running_since(&self) -> Option<Instant> {
        match &self.attempt {
            Attempt::First(_) => Some(self.started_at),
            Attempt::Retrying(retrying) => retrying.attempt_clock.started_at(),
            Attempt::DeadLettering(_) | Attempt::Ended => None,
        }
    }
}

// The futures are pinned on the heap. `Running` itself has no pinned field.
impl<F> Unpin for Running<F> {}

impl<F> Drop for Running<F> {
    fn drop(&mut self) {
        let attempt = std::mem::replace(&mut self.attempt, Attempt::Ended);
        drop_caught("dropping a handler that had not ended", attempt);
    }
}

impl<F, E> Future for Running<F>
where
    F: Future<Output = Result<Outcome, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Finished<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished<F>> {
        let this = &mut *self;
        let verdict = match &mut this.attempt {
            Attempt::First(slot) => {
                let Poll::Ready(outcome) = poll_attempt(slot, cx) else {
                    return Poll::Pending;
                };
                let settled = Settlement::of(outcome).map(Verdict::Settled);
                settled.map_err(Unsettled::Failed)
            }
            Attempt::Retrying(retrying) | Attempt::DeadLettering(retrying) => {
                match caught("the recovery", || retrying.future.as_mut().poll(cx)) {
                    Ok(Poll::Pending) => return Poll::Pending,
                    Ok(Poll::Ready(verdict)) => Ok(verdict),
                    Err(reason) if matches!(this.attempt, Attempt::Retrying(_)) => {
                        Err(Unsettled::Panicked(reason))
                    }
                    Err(reason) => Err(Unsettled::Lost(reason)),
                }
            }
            Attempt::Ended => return Poll::Pending,
        };
        let slot = match std::mem::replace(&mut this.attempt, Attempt::Ended) {
            Attempt::First(slot) => Some(slot),
            ended => {
                drop_caught("dropping a recovery", ended);
                None
            }
        };
        let Some(item) = this.item.take() else {
            return Poll::Pending;
        };
        Poll::Ready(Finished {
            item,
            lane: this.lane,
            started_at: this.started_at,
            verdict,
            slot,
        })
    }
}

/// Polls the future in the slot, and empties the slot when the future is done.
///
/// A future that panicked is dropped here. If the drop panics as well, the first reason is kept.
pub(crate) fn poll_attempt<F, E>(slot: &mut AttemptSlot<F>, cx: &mut Context<'_>) -> Poll<Outcome>
where
    F: Future<Output = Result<Outcome, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut outcome = None;
    let polled = caught("the handler", || {
        let future = slot.as_mut().as_pin_mut()?;
        let Poll::Ready(ended) = future.poll(cx) else {
            return None;
        };
        outcome = Some(match ended {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Retry(HandlerError::from(error.into())),
        });
        slot.set(None);
        Some(())
    });
    let Err(reason) = polled else {
        return outcome.map_or(Poll::Pending, Poll::Ready);
    };
    Poll::Ready(match outcome {
        Some(failed @ (Outcome::Retry(_) | Outcome::Dead(_))) => failed,
        // The handler succeeded, and its drop panicked.
        Some(_) => Outcome::Dead(reason),
        None => {
            // Its record is dead-lettered already.
            let _ = caught("dropping the handler", || slot.set(None));
            Outcome::Dead(reason)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::Stage;
    use std::task::Waker;

    /// A future that is ready at once and panics when it is dropped.
    struct Bomb(Option<Result<Outcome, Rude>>);

    /// An error that panics when it is boxed.
    struct Rude;

    impl From<Rude> for Box<dyn Error + Send + Sync> {
        fn from(_: Rude) -> Self {
            panic!("rude")
        }
    }

    impl Future for Bomb {
        type Output = Result<Outcome, Rude>;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
            self.0.take().map_or(Poll::Pending, Poll::Ready)
        }
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }

    fn polled(result: Result<Outcome, Rude>) -> (Outcome, bool) {
        let mut slot: AttemptSlot<Bomb> = Box::pin(Some(Bomb(Some(result))));
        let mut cx = Context::from_waker(Waker::noop());
        match poll_attempt(&mut slot, &mut cx) {
            Poll::Ready(outcome) => (outcome, slot.is_none()),
            Poll::Pending => panic!("it is ready"),
        }
    }

    #[test]
    fn a_panic_while_dropping_a_handler_fails_its_record() {
        let (outcome, is_empty) = polled(Ok(Outcome::Done));
        let Outcome::Dead(reason) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(reason.stage, Stage::Panic);
        assert_eq!(reason.message, "the handler panicked: in the drop");
        assert!(is_empty, "the slot can be used again");
    }

    #[test]
    fn a_failure_keeps_its_outcome_when_the_drop_panics() {
        let (outcome, _) = polled(Ok(Outcome::Retry(HandlerError::outage("down"))));
        assert!(matches!(outcome, Outcome::Retry(_)), "{outcome:?}");
    }

    #[test]
    fn a_panic_while_converting_an_error_is_an_outcome() {
        let (outcome, is_empty) = polled(Err(Rude));
        let Outcome::Dead(reason) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(reason.message, "the handler panicked: rude");
        assert!(is_empty);
    }

    #[test]
    fn unfinished_handlers_whose_drops_panic_are_dropped_quietly() {
        let slot: AttemptSlot<Bomb> = Box::pin(Some(Bomb(None)));
        let lane = crate::consumer::state::lanes::Lanes::<()>::default().occupy(None);
        let running = |slot| Running {
            item: None,
            lane,
            attempt: Attempt::First(slot),
            started_at: Instant::now(),
        };
        let other: AttemptSlot<Bomb> = Box::pin(Some(Bomb(None)));
        drop((running(slot), running(other)));
    }
}
