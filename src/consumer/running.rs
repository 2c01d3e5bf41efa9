//! A record whose handler was not ready at its first poll.
//!
//! Owns the future of its attempt, or of its recovery. A panic in a handler ends here: it is an outcome, never the end
//! of the worker.

use super::lanes::LaneId;
use super::ledger::Epoch;
use super::recover::Recovering;
use super::tally::{Settlement, Verdict};
use super::worker::Item;
use crate::event::Record;
use crate::handler::{DeadReason, Outcome};
use std::error::Error;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// A place for a first attempt's future, used again and again.
pub(super) type Slot<F> = Pin<Box<Option<F>>>;

/// A running record.
pub(super) struct Running<F> {
    /// None once finished.
    item: Option<Item>,
    lane: LaneId,
    attempt: Attempt<F>,
    started_at: Instant,
}

enum Attempt<F> {
    First(Option<Slot<F>>),
    Recovering(Recovering),
}

/// A record that ran to an end, or to an outcome that has to be recovered from.
pub(super) struct Finished<F> {
    pub(super) item: Item,
    pub(super) lane: LaneId,
    pub(super) started_at: Instant,
    pub(super) verdict: Result<Verdict, Outcome>,
    /// The first attempt's slot, empty again.
    pub(super) slot: Option<Slot<F>>,
}

impl<F> Running<F> {
    /// A first attempt that was polled and is not ready.
    pub(super) fn first(item: Item, lane: LaneId, slot: Slot<F>, started_at: Instant) -> Self {
        Self {
            item: Some(item),
            lane,
            attempt: Attempt::First(Some(slot)),
            started_at,
        }
    }

    /// A record that failed and is being recovered.
    pub(super) fn recovering(
        item: Item,
        lane: LaneId,
        recovering: Recovering,
        started_at: Instant,
    ) -> Self {
        Self {
            item: Some(item),
            lane,
            attempt: Attempt::Recovering(recovering),
            started_at,
        }
    }

    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.item.as_ref().map(|item| item.partition.epoch)
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.item.as_ref().map(|item| &item.record)
    }

    pub(super) fn record_mut(&mut self) -> Option<&mut Record> {
        self.item.as_mut().map(|item| &mut item.record)
    }

    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }
}

// The futures are pinned on the heap; nothing in `Running` itself is.
impl<F> Unpin for Running<F> {}

impl<F, E> Future for Running<F>
where
    F: Future<Output = Result<Outcome, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Finished<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished<F>> {
        let this = &mut *self;
        let (verdict, slot) = match &mut this.attempt {
            Attempt::First(slot) => {
                let Some(future) = slot.as_mut() else {
                    return Poll::Pending;
                };
                let Poll::Ready(outcome) = poll_attempt(future, cx) else {
                    return Poll::Pending;
                };
                (Settlement::of(outcome).map(Verdict::Settled), slot.take())
            }
            Attempt::Recovering(future) => match future.as_mut().poll(cx) {
                Poll::Ready(verdict) => (Ok(verdict), None),
                Poll::Pending => return Poll::Pending,
            },
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

/// Polls the future in the slot, and empties the slot when it is done.
pub(super) fn poll_attempt<F, E>(slot: &mut Slot<F>, cx: &mut Context<'_>) -> Poll<Outcome>
where
    F: Future<Output = Result<Outcome, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let polled = catch_unwind(AssertUnwindSafe(|| match slot.as_mut().as_pin_mut() {
        Some(future) => future.poll(cx),
        None => Poll::Pending,
    }));
    let outcome = match polled {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(Ok(outcome))) => outcome,
        Ok(Poll::Ready(Err(error))) => Outcome::Retry(error.into().into()),
        Err(panic) => Outcome::Dead(DeadReason::panic(panic.as_ref())),
    };
    slot.set(None);
    Poll::Ready(outcome)
}
