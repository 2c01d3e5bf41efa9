//! Records that are settled together.

use super::*;
use crate::publisher::buffer::{Buffer, Burst, Released};
use crate::publisher::delivery::{Delivery, Topic};
use crate::publisher::error::Failure;
use crate::publisher::route::SendMode;
use futures_util::FutureExt;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// The bytes of a record in these tests.
const BYTES: usize = 100;

/// A buffer and a topic without a client.
struct Bench {
    buffer: Buffer,
    topic: Arc<Topic>,
    /// How often the task that awaits receipts was woken.
    wakes: AtomicUsize,
}

impl Wake for Bench {
    /// The task runs at once, and its next record finds that the earlier ones are gone.
    fn wake(self: Arc<Self>) {
        assert_eq!(self.buffer.pending(), 0);
        assert_eq!(self.topic.route.enter(), Some(SendMode::Batched));
        self.topic.route.leave(1);
        self.wakes.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bench {
    fn new(records: usize, batches: bool) -> Arc<Self> {
        Arc::new(Self {
            buffer: Buffer::new(records * BYTES, records),
            topic: Arc::new(Topic::new("topic", batches)),
            wakes: AtomicUsize::new(0),
        })
    }

    fn enqueue(&self) -> PendingReceipt {
        let reservation = self.buffer.room.enter(BYTES).now_or_never();
        let reservation = reservation.expect("there is room");
        assert_eq!(self.topic.route.enter(), Some(SendMode::Batched));
        let (topic, charge) = (Arc::clone(&self.topic), reservation.charge());
        let sequence = self.buffer.enqueued(BYTES);
        reservation.keep();
        let delivery = Delivery::new(topic, charge, BYTES, None, sequence);
        PendingReceipt {
            delivery: Arc::new(delivery),
            topic: Some("topic".to_owned()),
            span: Span::none(),
        }
    }

    fn has_room(&self) -> bool {
        self.buffer.room.enter(BYTES).now_or_never().is_some()
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::SeqCst)
    }
}

fn poll(receipt: &mut PendingReceipt, bench: &Arc<Bench>) -> Poll<Result<Receipt, PublishError>> {
    let waker = Waker::from(Arc::clone(bench));
    Pin::new(receipt).poll(&mut Context::from_waker(&waker))
}

#[test]
fn the_task_that_awaits_a_burst_is_woken_once_when_it_is_released() {
    let bench = Bench::new(3, false);
    let mut receipts = [(); 3].map(|()| bench.enqueue());
    for receipt in &mut receipts {
        assert!(poll(receipt, &bench).is_pending());
    }
    let mut burst = Burst::default();
    for (receipt, offset) in receipts.iter().zip(0..) {
        let outcome = match offset {
            2 => Err(Failure::NoTopic),
            offset => Ok((7, offset)),
        };
        burst.settled.push((Arc::clone(&receipt.delivery), outcome));
    }
    let mut released = Released::default();
    assert!(!bench.buffer.settle(&bench.topic, &mut burst, &mut released));
    assert!(burst.settled.is_empty());
    assert_eq!(bench.wakes(), 0, "the client has not freed the records");
    assert!(!bench.has_room(), "the client has not freed the records");
    bench.buffer.release(released);
    assert_eq!(bench.wakes(), 1);
    let [first, second, third] = &mut receipts;
    for (receipt, offset) in [(first, 0), (second, 1)] {
        // A receipt that is polled again returns the same.
        for _ in 0..2 {
            let Poll::Ready(Ok(resolved)) = poll(receipt, &bench) else {
                panic!("it is settled");
            };
            assert_eq!(resolved, Receipt::new("topic", 7, offset));
        }
    }
    let failed = poll(third, &bench);
    assert!(
        matches!(failed, Poll::Ready(Err(PublishError::NoTopic { .. }))),
        "{failed:?}"
    );
    // The room of all three is free.
    for _ in 0..3 {
        drop(bench.enqueue());
    }
}

#[test]
fn whoever_is_woken_by_a_receipt_has_no_record_in_flight() {
    // While the topic's limit is unknown, its route admits one record at a time.
    let bench = Bench::new(1, true);
    let mut receipt = bench.enqueue();
    assert_eq!(bench.topic.route.enter(), None);
    assert!(poll(&mut receipt, &bench).is_pending());
    let must_take = bench.buffer.settle_one(&receipt.delivery, Ok((0, 0)));
    assert!(!must_take);
    assert_eq!(bench.wakes(), 1);
    assert!(poll(&mut receipt, &bench).is_ready());
}

#[test]
fn a_record_that_the_client_refuses_leaves_the_accounting() {
    let bench = Bench::new(2, false);
    let receipt = bench.enqueue();
    assert_eq!(bench.buffer.pending(), 1);
    let failure = Failure::NoPartition;
    let must_take = bench.buffer.settle_rejected(&receipt.delivery, &failure);
    assert!(!must_take);
    assert_eq!(bench.buffer.pending(), 0);
}

#[test]
fn records_of_a_producer_that_failed_permanently_name_the_cause() {
    let bench = Bench::new(1, false);
    let receipt = bench.enqueue();
    let error = KafkaError::Global(Code::Fatal);
    bench.buffer.client_error(&error, "the cause");
    let failure = |code| bench.buffer.failure(code, &receipt.delivery);
    for code in [Code::Fatal, Code::MessageTimedOut] {
        assert_eq!(failure(code), Failure::Fatal("the cause".to_owned()));
    }
    let Failure::Refused(reason) = failure(Code::PurgeQueue) else {
        panic!("it was not sent");
    };
    assert!(reason.contains("the cause"), "{reason}");
}
