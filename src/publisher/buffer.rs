//! The records that are enqueued and not settled. Callers that enqueue and the threads that serve
//! delivery reports share them.
//!
//! Owns the accounting and the texts of failures. Does not know the client.
//!
//! A record is counted before the client has it and counted off before its receipt resolves. So
//! [`Buffer::flush`] never returns too early, and a caller that holds all receipts may end the
//! publisher at once.
//!
//! Reports come in bursts, and their accounting is paid once a burst. Otherwise the threads that
//! report and those that enqueue would pass the same counters from core to core at each record.

use super::buffer_limit::BufferLimit;
use super::counters::Tally;
use super::delivery::{Delivery, Outcome, Topic};
use super::error::{Failure, Unsent, classify};
use crate::kafka::error::error_log;
use crate::telemetry::Metric;
use metrics::{Gauge, gauge};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The greatest age of a connection error that is mentioned in the reason of a timeout.
const CONNECTION_ERROR_AGE_MAX: Duration = Duration::from_secs(60);

/// The pending records of one publisher, over all of its producers.
pub(super) struct Buffer {
    pub(super) room: BufferLimit,
    /// The number of records that were ever enqueued.
    enqueued: AtomicU64,
    /// The number of those that are settled.
    settled: AtomicU64,
    /// Notified when no record is pending.
    idle: Notify,
    bytes: Gauge,
    connection_error: Mutex<Option<(Instant, String)>>,
    fatal: Mutex<Option<String>>,
}

/// Records of one topic that are settled together.
#[derive(Default)]
pub(super) struct Burst {
    pub(super) settled: Vec<(Arc<Delivery>, Outcome)>,
    /// The number of refused records that the topic's route keeps, to send them again.
    pub(super) kept: usize,
}

/// The rest of the work for settled records, when the client has freed them: see
/// [`Buffer::release`].
#[derive(Default)]
#[must_use = "callers wait for the room and the receipts of settled records"]
pub(super) struct Released {
    charges: usize,
    wakers: Vec<Waker>,
}

impl Buffer {
    pub(super) fn new(bytes_max: usize, records_max: usize) -> Self {
        Self {
            room: BufferLimit::new(u32::try_from(bytes_max).unwrap_or(u32::MAX), records_max),
            enqueued: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            idle: Notify::new(),
            bytes: gauge!(Metric::PublisherBufferBytes.name()),
            connection_error: Mutex::new(None),
            fatal: Mutex::new(None),
        }
    }

    /// The number of records that are enqueued and not settled.
    pub(super) fn pending(&self) -> usize {
        // In this order the difference is never negative, as a record is settled after it was
        // enqueued.
        let settled = self.settled.load(Ordering::SeqCst);
        let enqueued = self.enqueued.load(Ordering::SeqCst);
        (enqueued - settled) as usize
    }

    /// Counts a record that is about to be passed to the client. Returns its number.
    pub(super) fn enqueued(&self, bytes: usize) -> u64 {
        self.bytes.increment(bytes as f64);
        self.enqueued.fetch_add(1, Ordering::SeqCst)
    }

    /// Removes records from the accounting. Returns whether they were the last ones.
    fn remove_from_counts(&self, records: usize, bytes: usize) -> bool {
        self.bytes.decrement(bytes as f64);
        let records = records as u64;
        let settled = self.settled.fetch_add(records, Ordering::SeqCst) + records;
        self.enqueued.load(Ordering::SeqCst) == settled
    }

    /// Settles records of a topic that the client had accepted: delivered or failed. Empties the
    /// burst, and adds to `released` what is left to do. Returns whether the topic's refused
    /// records are to be taken from its route.
    pub(super) fn settle(&self, topic: &Topic, burst: &mut Burst, released: &mut Released) -> bool {
        let leaving = burst.settled.len() + std::mem::take(&mut burst.kept);
        let (mut tally, mut bytes) = (Tally::default(), 0);
        for (delivery, outcome) in &burst.settled {
            tally.add(outcome.as_ref().err());
            bytes += delivery.bytes;
            released.charges += delivery.charge as usize;
        }
        topic.published.count(&tally);
        // The accounting comes before the receipts: a caller that holds one may end the publisher
        // at once, or enqueue the next record as the only one in flight.
        let are_last = self.remove_from_counts(burst.settled.len(), bytes);
        let must_take_refused = topic.route.leave(leaving);
        for (delivery, outcome) in burst.settled.drain(..) {
            let Some(waker) = delivery.settle(outcome) else {
                continue;
            };
            let last = released.wakers.last();
            if !last.is_some_and(|last| last.will_wake(&waker)) {
                released.wakers.push(waker);
            }
        }
        if are_last {
            self.idle.notify_waiters();
        }
        must_take_refused
    }

    /// Returns the room of settled records, and wakes the tasks that await their receipts. Comes
    /// after the client has freed the records: a bound of memory counts what is not freed, and a
    /// caller that enqueues meanwhile would wait for the client's and the allocator's locks.
    pub(super) fn release(&self, released: Released) {
        self.room.leave(released.charges);
        for waker in released.wakers {
            waker.wake();
        }
    }

    /// Settles and releases one record that the client had accepted, and that it has freed or is
    /// about to free. Returns the same as [`Buffer::settle`].
    pub(super) fn settle_one(&self, delivery: &Arc<Delivery>, outcome: Outcome) -> bool {
        let mut burst = Burst {
            settled: vec![(Arc::clone(delivery), outcome)],
            kept: 0,
        };
        let mut released = Released::default();
        let must_take_refused = self.settle(&delivery.topic, &mut burst, &mut released);
        self.release(released);
        must_take_refused
    }

    /// Settles a record that the client did not accept. Its reservation returns its room. Returns
    /// the same as [`Buffer::settle`].
    pub(super) fn settle_rejected(&self, delivery: &Delivery, failure: &Failure) -> bool {
        let mut tally = Tally::default();
        tally.add(Some(failure));
        delivery.topic.published.count(&tally);
        if self.remove_from_counts(1, delivery.bytes) {
            self.idle.notify_waiters();
        }
        delivery.topic.route.leave(1)
    }

    /// Waits until no record is pending. The client's own flush would block a thread meanwhile.
    pub(super) async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        let idle = async {
            loop {
                let idle = self.idle.notified();
                if self.pending() == 0 {
                    return;
                }
                idle.await;
            }
        };
        if tokio::time::timeout(deadline, idle).await.is_ok() {
            return Ok(());
        }
        match self.pending() {
            0 => Ok(()),
            records => Err(Unsent { records }),
        }
    }

    /// Classifies an error, with the last error of the connection in its reason.
    pub(super) fn failure(&self, code: Code, delivery: &Delivery) -> Failure {
        let failure = classify(code, delivery.bytes);
        let fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        match (failure, fatal.as_ref()) {
            (Failure::Unknown(_) | Failure::Fatal(_), Some(fatal)) => Failure::Fatal(fatal.clone()),
            // The client gives up what it has not sent, and the publisher has not ended.
            (Failure::Refused(_), Some(fatal)) if code == Code::PurgeQueue => {
                Failure::Refused(format!("the producer failed before it was sent: {fatal}"))
            }
            (Failure::Unknown(reason), None) => Failure::Unknown(self.with_connection(reason)),
            (known, _) => known,
        }
    }

    /// Adds the last error of a connection, if it is recent: a timeout alone does not tell its
    /// cause.
    fn with_connection(&self, reason: String) -> String {
        let error = self
            .connection_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*error {
            Some((at, error)) if at.elapsed() < CONNECTION_ERROR_AGE_MAX => {
                format!("{reason} (last connection error: {error})")
            }
            _ => reason,
        }
    }

    /// Handles an error of a producer that belongs to no record.
    pub(super) fn client_error(&self, error: &KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::Fatal) => {
                tracing::error!(
                    reason,
                    "the producer failed permanently; restart the process"
                );
                let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
                *fatal = Some(reason.to_owned());
            }
            // It follows the errors of the single brokers, which are more specific.
            Some(Code::AllBrokersDown) => error_log::report_client_error(error, reason),
            _ => {
                error_log::report_client_error(error, reason);
                let mut last = self
                    .connection_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *last = Some((Instant::now(), reason.to_owned()));
            }
        }
    }
}
