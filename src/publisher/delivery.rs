//! A record's receipt: where it landed, or why not.
//!
//! Owns the one slot that a delivery report fills and a receipt empties: one allocation per record, which also travels
//! through the client as the record's opaque. Knows no client.

use super::error::{Failure, PublishError};
use super::route::Route;
use super::span;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tracing::Span;

/// Where the brokers put a record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset; -1 where the broker acknowledged a repeated batch as known without saying where it is.
    pub offset: i64,
}

/// Partition and offset, or the failure.
pub(super) type Outcome = Result<(i32, i64), Failure>;

/// An enqueued record on its way.
pub(super) struct Delivery {
    pub(super) topic: String,
    /// Its room in the buffer.
    pub(super) charge: u32,
    /// Its size.
    pub(super) bytes: usize,
    pub(super) route: Arc<Route>,
    /// Its place in the order of the publisher's records.
    pub(super) sequence: u64,
    slot: Mutex<Slot>,
}

enum Slot {
    Open(Option<Waker>),
    Settled(Outcome),
}

impl Delivery {
    pub(super) fn new(
        topic: String,
        charge: u32,
        bytes: usize,
        route: Arc<Route>,
        sequence: u64,
    ) -> Self {
        Self {
            topic,
            charge,
            bytes,
            route,
            sequence,
            slot: Mutex::new(Slot::Open(None)),
        }
    }

    /// Fills the slot and wakes whoever waits for the receipt.
    pub(super) fn settle(&self, outcome: Outcome) {
        let previous = {
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *slot, Slot::Settled(outcome))
        };
        if let Slot::Open(Some(waker)) = previous {
            waker.wake();
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Slot::Settled(outcome) => Poll::Ready(outcome.clone()),
            Slot::Open(Some(waker)) => {
                waker.clone_from(cx.waker());
                Poll::Pending
            }
            Slot::Open(empty) => {
                *empty = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// An enqueued record's receipt to come. Dropping it does not take the record back.
#[must_use = "a record is only known to be published when its receipt says so"]
pub struct PendingReceipt {
    pub(super) delivery: Arc<Delivery>,
    pub(super) span: Span,
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(outcome) = this.delivery.poll(cx) else {
            return Poll::Pending;
        };
        span::end(&this.span, outcome.as_ref());
        Poll::Ready(match outcome {
            Ok((partition, offset)) => Ok(Receipt {
                topic: this.delivery.topic.clone(),
                partition,
                offset,
            }),
            Err(failure) => Err(failure.into_error(&this.delivery.topic)),
        })
    }
}
