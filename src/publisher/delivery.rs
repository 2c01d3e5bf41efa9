//! The receipt of a record: its position in the log, or its failure.
//!
//! Owns the slot that a delivery report fills and a receipt empties: one allocation per record,
//! which also travels through the client as the record's opaque. Does not know the client.
//!
//! A slot is settled once, by a producer's thread, or by the caller if the client did not accept
//! the record. A receipt may be polled again after it has resolved: the outcome stays in the slot.

use super::counters::TopicCounters;
use super::error::{Failure, PublishError};
use super::route::{RefusedRecord, TopicRoute};
use super::span;
use crate::kafka::native::MessageHeaders;
use bytes::Bytes;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use tracing::Span;

/// The position at which the brokers stored a record: all in-sync replicas have it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The topic of the record.
    pub topic: String,
    /// The partition that the record was written to.
    pub partition: i32,
    /// The offset of the record. -1 if the broker acknowledged a repeated batch as a duplicate
    /// without its offset.
    pub offset: i64,
}

impl Receipt {
    /// A receipt of this position. For tests of code that receives receipts: a publisher creates
    /// its own.
    pub fn new(topic: impl Into<String>, partition: i32, offset: i64) -> Self {
        Self {
            topic: topic.into(),
            partition,
            offset,
        }
    }
}

/// A topic that a publisher sends to. Its records share it.
pub(super) struct Topic {
    pub(super) name: String,
    /// The route of its records, which keeps refused ones as [`Resend`].
    pub(super) route: TopicRoute<Resend>,
    pub(super) published: TopicCounters,
}

impl Topic {
    /// Creates the topic of a client that batches, or of one that sends each record alone anyway.
    pub(super) fn new(name: &str, batches: bool) -> Self {
        Self {
            name: name.to_owned(),
            route: TopicRoute::new(batches),
            published: TopicCounters::new(name),
        }
    }
}

/// Partition and offset, or the failure.
pub(super) type Outcome = Result<(i32, i64), Failure>;

/// An enqueued record that is not settled.
pub(super) struct Delivery {
    pub(super) topic: Arc<Topic>,
    /// The room that it is charged in the buffer, in bytes.
    pub(super) charge: u32,
    /// Its size in bytes.
    pub(super) bytes: usize,
    /// The timestamp that its caller has set: the report of a failed record has none.
    pub(super) timestamp_ms: Option<i64>,
    /// Its number in the order in which the publisher sends.
    pub(super) sequence: u64,
    slot: Mutex<Slot>,
}

/// The place of the outcome. An open slot has the waker of the task that awaits it, if one does.
enum Slot {
    Open(Option<Waker>),
    Settled(Outcome),
}

impl Delivery {
    pub(super) fn new(
        topic: Arc<Topic>,
        charge: u32,
        bytes: usize,
        timestamp_ms: Option<i64>,
        sequence: u64,
    ) -> Self {
        Self {
            topic,
            charge,
            bytes,
            timestamp_ms,
            sequence,
            slot: Mutex::new(Slot::Open(None)),
        }
    }

    /// Fills the slot. Returns the waker of the task that awaits the receipt, if one does.
    #[must_use = "the task that awaits the receipt must be woken"]
    pub(super) fn settle(&self, outcome: Outcome) -> Option<Waker> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *slot, Slot::Settled(outcome)) {
            Slot::Open(waker) => waker,
            Slot::Settled(_) => None,
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

/// The future receipt of an enqueued record. Awaiting it yields the [`Receipt`] or the
/// [`PublishError`]. Dropping it does not cancel the record.
///
/// It resolves when the brokers answer, at the latest after the client's `delivery.timeout.ms`. It
/// needs no runtime of its own: a thread of the client wakes the task that awaits it. It may be
/// awaited in any order with other receipts, by another task than the one that enqueued the record.
/// Cancel-safe: it may be polled again by `&mut` after a `select!`.
#[must_use = "only an awaited receipt shows whether the record is published"]
pub struct PendingReceipt {
    pub(super) delivery: Arc<Delivery>,
    /// The topic's name as the record had it, until the receipt has it: no copy is needed.
    pub(super) topic: Option<String>,
    pub(super) span: Span,
}

impl std::fmt::Debug for PendingReceipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingReceipt")
            .field("topic", &self.delivery.topic.name)
            .finish_non_exhaustive()
    }
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(outcome) = this.delivery.poll(cx) else {
            return Poll::Pending;
        };
        span::end(&this.span, outcome.as_ref());
        let name = &this.delivery.topic.name;
        Poll::Ready(match outcome {
            Ok((partition, offset)) => Ok(Receipt {
                topic: this.topic.take().unwrap_or_else(|| name.clone()),
                partition,
                offset,
            }),
            Err(failure) => Err(failure.into_error(name)),
        })
    }
}

/// A record whose batch was refused, with copies of its key and value: the client frees its own
/// after the report.
pub(super) struct Resend {
    pub(super) delivery: Arc<Delivery>,
    pub(super) partition: i32,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: MessageHeaders,
    /// The brokers' error for its batch.
    pub(super) code: Code,
}

impl RefusedRecord for Resend {
    fn sequence(&self) -> u64 {
        self.delivery.sequence
    }

    fn partition(&self) -> i32 {
        self.partition
    }

    fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }
}
