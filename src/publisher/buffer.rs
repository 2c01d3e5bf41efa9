//! The records that are enqueued and not settled. Callers that enqueue and the threads that serve
//! delivery reports share them.
//!
//! Owns the accounting and the texts of failures. Does not know the client.
//!
//! A record is counted before the client has it and counted off before its receipt resolves. So
//! [`Buffer::flush`] never returns too early, and a caller that holds all receipts may end the
//! publisher at once.

use super::buffer_limit::BufferLimit;
use super::counters::Published;
use super::delivery::{Delivery, Outcome};
use super::error::{Failure, Unsent, classify};
use crate::kafka::error::error_log;
use crate::telemetry::Metric;
use metrics::{Gauge, gauge};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// The greatest age of a connection error that is mentioned in the reason of a timeout.
const CONNECTION_ERROR_AGE_MAX: Duration = Duration::from_secs(60);

/// The pending records of one publisher, over all of its producers.
pub(super) struct Buffer {
    pub(super) room: BufferLimit,
    pending: AtomicUsize,
    /// Notified when no record is pending.
    idle: Notify,
    bytes: Gauge,
    published: Mutex<Published>,
    connection_error: Mutex<Option<(Instant, String)>>,
    fatal: Mutex<Option<String>>,
}

impl Buffer {
    pub(super) fn new(bytes_max: usize, records_max: usize) -> Self {
        Self {
            room: BufferLimit::new(u32::try_from(bytes_max).unwrap_or(u32::MAX), records_max),
            pending: AtomicUsize::new(0),
            idle: Notify::new(),
            bytes: gauge!(Metric::PublisherBufferBytes.name()),
            published: Mutex::new(Published::default()),
            connection_error: Mutex::new(None),
            fatal: Mutex::new(None),
        }
    }

    /// The number of records that are enqueued and not settled.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Counts a record that is about to be passed to the client.
    pub(super) fn enqueued(&self, bytes: usize) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        self.bytes.increment(bytes as f64);
    }

    /// Removes a record from the accounting. Returns whether it was the last one.
    fn remove_from_counts(&self, bytes: usize) -> bool {
        self.bytes.decrement(bytes as f64);
        self.pending.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Settles a record that the client had accepted: delivered or failed.
    pub(super) fn settle(&self, delivery: &Delivery, outcome: Outcome) {
        self.count(&delivery.topic, outcome.as_ref().err());
        self.room.leave(delivery.charge);
        // The accounting comes before the receipt: the caller that holds the receipt may end the
        // publisher at once.
        let last = self.remove_from_counts(delivery.bytes);
        delivery.settle(outcome);
        if last {
            self.idle.notify_waiters();
        }
    }

    /// Settles a record that the client did not accept. Its entry releases its room.
    pub(super) fn settle_rejected(&self, delivery: &Delivery, failure: &Failure) {
        if self.remove_from_counts(delivery.bytes) {
            self.idle.notify_waiters();
        }
        self.count(&delivery.topic, Some(failure));
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

    fn count(&self, topic: &str, failure: Option<&Failure>) {
        self.published
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .count(topic, failure);
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
