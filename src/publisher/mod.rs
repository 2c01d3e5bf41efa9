//! Typed publishing: acknowledged by all in-sync replicas, idempotent, in order, with back-pressure.
//!
//! Owns the way of an event to the log and the receipt back. Knows schemas and the client's producer, but neither
//! handlers nor groups.
//!
//! [`Publisher::publish`] returns when the brokers have the event. For throughput, [`Publisher::enqueue`] many and
//! await their [`PendingReceipt`]s afterwards: calls made one after the other keep their order on the log. The buffer is
//! bounded in bytes and records; when it is full, enqueuing waits, first come, first served, and nothing is ever taken
//! out and put in again, so that back-pressure cannot change the order.
//!
//! Before a process ends it calls [`Publisher::flush`]. What is still in the buffer when the last clone goes is lost;
//! that is logged as an error with the count, and its receipts resolve to an error.

mod buffer;
mod client;
mod counters;
mod delivery;
mod error;
mod reports;
mod room;
mod route;
mod span;

#[cfg(test)]
mod tests;

pub use delivery::{PendingReceipt, Receipt};
pub use error::{PublishError, Unsent};

use crate::event::{self, ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::schema::Catalogue;
use client::Client;
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;

/// How a publisher behaves.
#[derive(Clone)]
pub struct PublisherSettings {
    /// CloudEvents source of what this service publishes, for example `/shop/payments`.
    pub source: String,
    /// Binary (default) or structured.
    pub content_mode: ContentMode,
    /// Validates payloads before they are sent; none sends unchecked.
    pub catalogue: Option<Arc<Catalogue>>,
    /// Bytes of records that wait for their acknowledgement at most, up to 4 GiB; enqueuing waits for room. A record
    /// larger than this goes alone.
    pub buffer_bytes_max: usize,
    /// Records that wait for their acknowledgement at most.
    pub buffer_records_max: usize,
}

impl PublisherSettings {
    /// Defaults for a source: binary mode, unchecked payloads, 64 MiB or 100,000 records in the buffer.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            content_mode: ContentMode::Binary,
            catalogue: None,
            buffer_bytes_max: 64 << 20,
            buffer_records_max: 100_000,
        }
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if self.source.is_empty() {
            return Err(ConfigError::new(
                "source",
                "a publisher needs the CloudEvents source of its events, for example /shop/orders",
            ));
        }
        if self.buffer_records_max == 0 {
            return Err(ConfigError::new(
                "buffer_records_max",
                "the buffer must hold at least one record",
            ));
        }
        if self.buffer_bytes_max == 0 || u32::try_from(self.buffer_bytes_max).is_err() {
            return Err(ConfigError::new(
                "buffer_bytes_max",
                "the buffer must hold at least one byte and less than 4 GiB",
            ));
        }
        Ok(())
    }
}

/// Publishes events. Cheap to clone; clones share one client and one buffer.
///
/// Dropping the last clone waits up to half a second for the client to end; flush first, or what is in the buffer is
/// lost (and logged as lost).
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PublisherSettings,
    client: Client,
}

impl Publisher {
    /// A publisher; connects in the background.
    ///
    /// Counts through the `metrics` recorder that is installed at this moment.
    ///
    /// # Errors
    /// A setting that cannot be used. An unreachable broker is no error here: records wait in the buffer for it.
    pub fn new(kafka: &KafkaConfig, settings: PublisherSettings) -> Result<Self, ConfigError> {
        settings.validate()?;
        let client = Client::new(
            kafka,
            settings.buffer_bytes_max,
            settings.buffer_records_max,
        )?;
        Ok(Self {
            shared: Arc::new(Shared { settings, client }),
        })
    }

    /// The source of what this publisher sends.
    pub fn source(&self) -> &str {
        &self.shared.settings.source
    }

    /// Publishes and waits for the brokers' acknowledgement.
    ///
    /// # Errors
    /// See [`PublishError`]; only [`PublishError::Unknown`] and [`PublishError::Fatal`] leave open whether the event is
    /// on the log.
    pub async fn publish<T: EventType>(&self, event: &Event<T>) -> Result<Receipt, PublishError> {
        self.enqueue(event).await?.await
    }

    /// Enqueues in order, waiting for room in the buffer; the receipt comes later. Calls made one after the other keep
    /// their order on the log. Dropping the receipt does not take the event back.
    ///
    /// # Errors
    /// What is known at once: an invalid payload, a record too large for the client, a failed client.
    pub async fn enqueue<T: EventType>(
        &self,
        event: &Event<T>,
    ) -> Result<PendingReceipt, PublishError> {
        let record = self.encode(event, Some(&TraceContext::root()))?;
        self.enqueue_record(record).await
    }

    /// Validates and encodes without sending: what `publish` would send.
    ///
    /// # Errors
    /// A payload that cannot be serialised or does not follow its schema.
    pub fn encode<T: EventType>(
        &self,
        event: &Event<T>,
        trace: Option<&TraceContext>,
    ) -> Result<OutgoingRecord, PublishError> {
        let settings = &self.shared.settings;
        encode(
            event,
            settings.content_mode,
            settings.catalogue.as_deref(),
            trace,
        )
    }

    /// [`Publisher::publish`] for a record that is already encoded.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn publish_record(&self, record: OutgoingRecord) -> Result<Receipt, PublishError> {
        self.enqueue_record(record).await?.await
    }

    /// [`Publisher::enqueue`] for a record that is already encoded.
    ///
    /// # Errors
    /// As [`Publisher::enqueue`].
    pub async fn enqueue_record(
        &self,
        record: OutgoingRecord,
    ) -> Result<PendingReceipt, PublishError> {
        let span = span::send(&record);
        if span.is_disabled() {
            return self.shared.client.enqueue(record, span).await;
        }
        let waiting = span.clone();
        self.shared
            .client
            .enqueue(record, span)
            .instrument(waiting)
            .await
    }

    /// Waits until everything enqueued is acknowledged; says what is not by the deadline.
    ///
    /// Records that others enqueue meanwhile are waited for too. The buffer is left as it is: what was not sent by the
    /// deadline is still tried while the publisher lives.
    ///
    /// # Errors
    /// How many records have neither an acknowledgement nor an error when the deadline is over.
    pub async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        self.shared.client.flush(deadline).await
    }

    /// Asks the brokers now for the partitions of a topic that may have been given more.
    pub(crate) async fn look_up(&self, topic: &str) {
        let (shared, topic) = (Arc::clone(&self.shared), topic.to_owned());
        let ask = move || shared.client.look_up(&topic, LOOK_UP_WITHIN);
        // It only panics where the client does.
        drop(tokio::task::spawn_blocking(ask).await);
    }
}

/// How long the partitions of a topic are asked for.
const LOOK_UP_WITHIN: Duration = Duration::from_secs(5);

/// Validates and encodes; also what an outbox does.
pub(crate) fn encode<T: EventType>(
    event: &Event<T>,
    mode: ContentMode,
    catalogue: Option<&Catalogue>,
    trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, PublishError> {
    let record = event::encode(event, mode, trace)?;
    if let Some(catalogue) = catalogue {
        // By its text, like the consumer: a tree made of the data itself cannot hold every number that its text can.
        let json = match (mode, &record.value) {
            (ContentMode::Binary, Some(json)) => json.clone(),
            _ => serde_json::to_vec(&event.data)?.into(),
        };
        catalogue.check(&event.attributes.ty, &json)??;
    }
    Ok(record)
}
