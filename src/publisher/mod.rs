//! Typed publishing: acknowledged by all in-sync replicas, idempotent, in order, with back-pressure.

use crate::event::{ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::schema::Catalogue;
use std::sync::Arc;
use std::time::Duration;

/// How a publisher behaves.
#[derive(Clone)]
pub struct PublisherSettings {
    /// CloudEvents source of what this service publishes, for example `/shop/payments`.
    pub source: String,
    /// Binary (default) or structured.
    pub content_mode: ContentMode,
    /// Validates payloads before they are sent; none sends unchecked.
    pub catalogue: Option<Arc<Catalogue>>,
    /// Bytes of records that wait for their acknowledgement at most; enqueuing waits for room.
    pub buffer_bytes_max: usize,
    /// Records that wait for their acknowledgement at most.
    pub buffer_records_max: usize,
}

/// Publishes events. Cheap to clone; clones share one client and one buffer.
#[derive(Clone)]
pub struct Publisher {}

/// Where the brokers put a record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Why an event is not (known to be) published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The payload does not follow its schema; nothing was sent.
    #[error(transparent)]
    Invalid(#[from] crate::schema::ValidationError),
    /// The payload could not be serialised; nothing was sent.
    #[error("the payload cannot be serialised: {0}")]
    Serialize(#[from] serde_json::Error),
    /// The brokers refused it for good; it is not on the log.
    #[error("not published to {topic}: {reason}")]
    Refused {
        /// Topic.
        topic: String,
        /// What the brokers said and what to do.
        reason: String,
    },
    /// It may or may not be on the log: publish it again with the same event id, consumers suppress the second.
    #[error("outcome unknown on {topic}: {reason}; publish again with the same id")]
    Unknown {
        /// Topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The client is unusable; the process should end and start again.
    #[error("the producer failed for good: {0}")]
    Fatal(String),
}

/// An enqueued record's receipt to come.
pub struct PendingReceipt {}

impl std::future::Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;
    fn poll(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        todo!()
    }
}

/// What a flush could not send before its deadline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{records} records were not acknowledged before the deadline")]
pub struct Unsent {
    /// Records without an acknowledgement.
    pub records: usize,
}

impl PublisherSettings {
    /// Defaults for a source.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            content_mode: ContentMode::Binary,
            catalogue: None,
            buffer_bytes_max: 64 << 20,
            buffer_records_max: 100_000,
        }
    }
}

impl Publisher {
    /// A publisher; connects in the background.
    pub fn new(_kafka: &KafkaConfig, _settings: PublisherSettings) -> Result<Self, ConfigError> {
        todo!()
    }
    /// The source of what this publisher sends.
    pub fn source(&self) -> &str {
        todo!()
    }
    /// Publishes and waits for the brokers' acknowledgement.
    pub async fn publish<T: EventType>(&self, _event: &Event<T>) -> Result<Receipt, PublishError> {
        todo!()
    }
    /// Enqueues in order, waiting for room in the buffer; the receipt comes later. Calls made one after the other keep
    /// their order on the log.
    pub async fn enqueue<T: EventType>(
        &self,
        _event: &Event<T>,
    ) -> Result<PendingReceipt, PublishError> {
        todo!()
    }
    /// Validates and encodes without sending: what `publish` would send.
    pub fn encode<T: EventType>(
        &self,
        _event: &Event<T>,
        _trace: Option<&TraceContext>,
    ) -> Result<OutgoingRecord, PublishError> {
        todo!()
    }
    /// [`Publisher::publish`] for a record that is already encoded.
    pub async fn publish_record(&self, _record: OutgoingRecord) -> Result<Receipt, PublishError> {
        todo!()
    }
    /// [`Publisher::enqueue`] for a record that is already encoded.
    pub async fn enqueue_record(
        &self,
        _record: OutgoingRecord,
    ) -> Result<PendingReceipt, PublishError> {
        todo!()
    }
    /// Waits until everything enqueued is acknowledged; says what is not by the deadline.
    pub async fn flush(&self, _deadline: Duration) -> Result<(), Unsent> {
        todo!()
    }
}
