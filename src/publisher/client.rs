//! The client's producer behind a publisher.
//!
//! Owns the producer, its buffer's accounting and what its delivery reports settle. Knows records, but no events.

use super::counters::Published;
use super::delivery::{Delivery, PendingReceipt};
use super::error::{Failure, PublishError, Unsent, classify};
use super::room::{Entry, Room};
use super::span;
use crate::event::OutgoingRecord;
use crate::kafka::queue::{Watched, native_headers};
use crate::kafka::{ConfigError, KafkaConfig, is_topic_name, log};
use crate::telemetry::Metric;
use metrics::{Gauge, gauge};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tracing::Span;

/// How long a connection error is worth mentioning beside a timeout.
const CONNECTION_ERROR_AGE_MAX: Duration = Duration::from_secs(60);

/// A producer with a thread of its own that serves delivery reports.
pub(super) struct Client {
    // Before the producer: it must go first.
    _watched: Watched,
    producer: ThreadedProducer<Buffer>,
}

/// What is enqueued and not settled, shared between those who enqueue and the thread that serves delivery reports.
struct Buffer {
    room: Room,
    pending: AtomicUsize,
    /// Told whenever nothing is pending.
    idle: Notify,
    bytes: Gauge,
    published: Mutex<Published>,
    connection_error: Mutex<Option<(Instant, String)>>,
    fatal: Mutex<Option<String>>,
}

impl Client {
    pub(super) fn new(
        kafka: &KafkaConfig,
        bytes_max: usize,
        records_max: usize,
    ) -> Result<Self, ConfigError> {
        let buffer = Buffer {
            room: Room::new(u32::try_from(bytes_max).unwrap_or(u32::MAX), records_max),
            pending: AtomicUsize::new(0),
            idle: Notify::new(),
            bytes: gauge!(Metric::PublisherBufferBytes.name()),
            published: Mutex::new(Published::default()),
            connection_error: Mutex::new(None),
            fatal: Mutex::new(None),
        };
        let producer: ThreadedProducer<Buffer> = kafka
            .producer()?
            .create_with_context(buffer)
            .map_err(ConfigError::from_client)?;
        let _watched = Watched::new(producer.client(), &kafka.brokers, None);
        Ok(Self { _watched, producer })
    }

    fn buffer(&self) -> &Buffer {
        self.producer.client().context()
    }

    /// Waits for room, then enqueues.
    pub(super) async fn enqueue(
        &self,
        record: OutgoingRecord,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        if !is_topic_name(&record.topic) {
            // The client would take it and wait for the brokers to say so.
            let failure = classify(Code::InvalidTopic, &record.topic, 0);
            return Err(failure.into_error(&record.topic));
        }
        let bytes = size(&record);
        let entry = self.buffer().room.enter(bytes).await;
        self.send(record, bytes, entry, span)
    }

    fn send(
        &self,
        record: OutgoingRecord,
        bytes: usize,
        entry: Entry<'_>,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        let buffer = self.buffer();
        let delivery = Arc::new(Delivery::new(record.topic, entry.charge(), bytes));
        let mut native =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&delivery.topic, Arc::clone(&delivery));
        native.partition = record.partition;
        native.key = record.key.as_deref();
        native.payload = record.value.as_deref();
        native.timestamp = record.timestamp_ms;
        if !record.headers.is_empty() {
            native.headers = Some(native_headers(&record.headers).map_err(|code| {
                classify(code, &delivery.topic, bytes).into_error(&delivery.topic)
            })?);
        }
        // Counted before the client has it, because its report may come before `send` returns.
        buffer.enqueued(bytes);
        match self.producer.send(native) {
            Ok(()) => {
                entry.keep();
                Ok(PendingReceipt { delivery, span })
            }
            Err((error, refused)) => {
                drop(refused);
                if buffer.settled(bytes) {
                    buffer.idle.notify_waiters();
                }
                let code = error.rdkafka_error_code().unwrap_or(Code::InvalidArgument);
                let failure = buffer.failure(code, &delivery);
                buffer.count(&delivery.topic, Some(&failure));
                span::end(&span, Err(&failure));
                Err(failure.into_error(&delivery.topic))
            }
        }
    }

    /// Waits until nothing is pending. The client's own flush would do the same on a blocked thread.
    pub(super) async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        let buffer = self.buffer();
        let idle = async {
            loop {
                let told = buffer.idle.notified();
                if buffer.pending.load(Ordering::SeqCst) == 0 {
                    return;
                }
                told.await;
            }
        };
        if tokio::time::timeout(deadline, idle).await.is_ok() {
            return Ok(());
        }
        match buffer.pending.load(Ordering::SeqCst) {
            0 => Ok(()),
            records => Err(Unsent { records }),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let lost = self.buffer().pending.load(Ordering::SeqCst);
        if lost > 0 {
            tracing::error!(
                records = lost,
                "the publisher ends with unacknowledged records, which are lost; flush before the last clone is dropped"
            );
        }
    }
}

impl Buffer {
    fn enqueued(&self, bytes: usize) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        self.bytes.increment(bytes as f64);
    }

    /// Takes a record off the books; whether it was the last one.
    fn settled(&self, bytes: usize) -> bool {
        self.bytes.decrement(bytes as f64);
        self.pending.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Classes an error, with what else is known about the connection.
    fn failure(&self, code: Code, delivery: &Delivery) -> Failure {
        let failure = classify(code, &delivery.topic, delivery.bytes);
        let fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        match (failure, fatal.as_ref()) {
            (refused @ (Failure::Refused(_) | Failure::TooLarge(_) | Failure::Unfit(_)), _) => {
                refused
            }
            (_, Some(fatal)) => Failure::Fatal(fatal.clone()),
            (Failure::Unknown(reason), None) => Failure::Unknown(self.with_connection(reason)),
            (fatal @ Failure::Fatal(_), None) => fatal,
        }
    }

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
}

impl ClientContext for Buffer {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log::forward(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::Fatal) => {
                tracing::error!(reason, "the producer failed for good");
                let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
                *fatal = Some(reason.to_owned());
            }
            // It follows the errors of the single brokers, which say more, and also comes when the bootstrap connection
            // is given up for a better one.
            Some(Code::AllBrokersDown) => tracing::debug!(target: "librdkafka", "{reason}"),
            _ => {
                tracing::warn!(target: "librdkafka", %error, "{reason}");
                let mut last = self
                    .connection_error
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *last = Some((Instant::now(), reason.to_owned()));
            }
        }
    }
}

impl ProducerContext for Buffer {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                Err(self.failure(code, &delivery))
            }
        };
        self.count(&delivery.topic, outcome.as_ref().err());
        self.room.leave(delivery.charge);
        // Off the books before the receipt is there: who has it may end the publisher at once.
        let last = self.settled(delivery.bytes);
        delivery.settle(outcome);
        if last {
            self.idle.notify_waiters();
        }
    }
}

/// What a record takes in memory, roughly, and on the wire before compression.
fn size(record: &OutgoingRecord) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len))
        .sum();
    record.key.as_ref().map_or(0, |key| key.len())
        + record.value.as_ref().map_or(0, |value| value.len())
        + headers
}
