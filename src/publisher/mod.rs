//! Typed publishing: idempotent, in order, with back-pressure, acknowledged by all in-sync
//! replicas.
//!
//! Owns the path of an event to the log and its receipt. Knows schemas and the client's producer,
//! but neither handlers nor groups.
//!
//! [`Publisher::publish`] returns after the brokers have acknowledged the event. For throughput,
//! call [`Publisher::enqueue`] for many events and await their [`PendingReceipt`]s afterwards:
//! consecutive calls keep their order on the log. The buffer is bounded in bytes and records. When
//! it is full, enqueuing waits, first come, first served. A record never leaves the buffer to be
//! enqueued again, so back-pressure cannot change the order.
//!
//! Call [`Publisher::flush`] before the process ends. Records that are still in the buffer when the
//! last clone is dropped are lost: their count is logged as an error, and their receipts resolve to
//! an error.
//!
//! A service that must not lose an event together with its own transaction uses an outbox
//! (`evenkeel::outbox`) instead of publishing directly.
//!
//! # The path of a record
//! 1. The event is encoded (`event::encode`) and its payload validated, if a catalogue is set.
//! 2. It waits for room in the buffer (`buffer_limit.rs`), first come, first served.
//! 3. It enters the route of its topic (`route.rs`), which decides how it is batched.
//! 4. One of librdkafka's producers sends it (`producer/`).
//! 5. The producer's own thread takes the reports of a batch (`producer/reports.rs`). The records
//!    leave the accounting (`buffer.rs`, `counters.rs`), and their receipts' slots are filled
//!    (`delivery.rs`). When the client has freed them, their room is returned, and each task that
//!    awaits a receipt is woken.
//!
//! # Invariants
//! - Records of a key are written in the order in which they were enqueued, also through clones of
//!   one publisher. Of two calls the first is the one that returned before the other began.
//! - Every pending receipt resolves: to a receipt, or to an error that states whether the record
//!   may be on the log.
//! - The buffer's bytes and records never exceed the settings, except for one record that is larger
//!   than the whole buffer.

mod buffer;
mod buffer_limit;
mod counters;
mod delivery;
mod error;
mod producer;
mod route;
mod settings;
mod span;

#[cfg(test)]
mod tests;

pub use delivery::{PendingReceipt, Receipt};
pub use error::{PublishError, Unsent};
pub use producer::PartitionOf;
pub use settings::PublisherSettings;

use crate::event::{self, ContentMode, Event, EventType, OutgoingRecord, TraceContext};
use crate::kafka::{ConfigError, KafkaConfig};
use crate::schema::{PayloadValidator, check};
use crate::telemetry::{current_trace, trace_of};
use producer::Client;
use std::sync::Arc;
use std::time::Duration;
use tracing::{Instrument, Span};

/// Publishes events to Kafka. Cheap to clone: clones share one client and one buffer.
///
/// Its methods may be called from any task. They block no thread. Create one publisher for a
/// process and clone it: events of one key keep their order within one publisher only.
///
/// Dropping the last clone waits up to half a second for the reports of the records that it gives
/// up; the client ends in the background. Flush first: records that are still in the buffer are
/// lost, and the loss is logged.
///
/// ```no_run
/// use evenkeel::event::{Event, EventType};
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::publisher::{Publisher, PublisherSettings};
/// use std::time::Duration;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Opened { account: String }
/// # impl EventType for Opened {
/// #     const TYPE: &'static str = "bank.account-opened.v1";
/// #     const TOPIC: &'static str = "bank.accounts";
/// #     fn key(&self) -> String { self.account.clone() }
/// # }
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let kafka = KafkaConfig::new("localhost:9092");
/// let publisher = Publisher::new(&kafka, PublisherSettings::new("/bank/branch"))?;
/// let event = Event::new(publisher.source(), Opened { account: "a-1".to_owned() });
/// let receipt = publisher.publish(&event).await?;
/// println!("partition {}, offset {}", receipt.partition, receipt.offset);
/// publisher.flush(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
///
/// With many events, enqueue them all and await the receipts afterwards: the wait for the brokers
/// is shared by a whole batch.
///
/// ```no_run
/// # use evenkeel::event::{Event, EventType};
/// # use evenkeel::publisher::{PublishError, Publisher};
/// # async fn example<T: EventType>(
/// #     publisher: Publisher,
/// #     events: Vec<Event<T>>,
/// # ) -> Result<(), PublishError> {
/// let mut receipts = Vec::with_capacity(events.len());
/// for event in &events {
///     // Waits for room in the buffer, and not for the brokers.
///     receipts.push(publisher.enqueue(event).await?);
/// }
/// for receipt in receipts {
///     receipt.await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    settings: PublisherSettings,
    client: Client,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// Creates a publisher, which connects in the background.
    ///
    /// It counts through the `metrics` recorder that is installed at this moment: install the
    /// recorder first. With SASL/OAUTHBEARER it calls the source of tokens, which may block.
    ///
    /// # Errors
    /// Returns an error if a setting cannot be used. An unreachable broker is no error here:
    /// records wait for it in the buffer, for up to `delivery.timeout.ms` (five minutes by default)
    /// each.
    pub fn new(kafka: &KafkaConfig, settings: PublisherSettings) -> Result<Self, ConfigError> {
        settings.validate()?;
        let client = Client::new(kafka, &settings)?;
        Ok(Self {
            shared: Arc::new(Shared { settings, client }),
        })
    }

    /// Makes records that are lost at the end of this publisher no reason for an error in the log.
    pub(crate) fn expendable(self) -> Self {
        let may_lose_records = &self.shared.client.may_lose_records;
        may_lose_records.store(true, std::sync::atomic::Ordering::Relaxed);
        self
    }

    /// The CloudEvents source of the events that this publisher sends.
    pub fn source(&self) -> &str {
        &self.shared.settings.source
    }

    /// Publishes an event and waits for the brokers' acknowledgement.
    ///
    /// The wait for the acknowledgement is bounded by the client's `delivery.timeout.ms`, five
    /// minutes by default. The wait for room in the buffer, which comes before it, ends when
    /// earlier records are settled. If the future is dropped before the record is enqueued, nothing
    /// is sent. Later the record is sent nevertheless.
    ///
    /// # Errors
    /// Returns a [`PublishError`]. Only [`PublishError::Unknown`] and [`PublishError::Fatal`] leave
    /// open whether the event is on the log.
    pub async fn publish<T: EventType>(&self, event: &Event<T>) -> Result<Receipt, PublishError> {
        self.enqueue(event).await?.await
    }

    /// Enqueues an event, after waiting for room in the buffer. The returned receipt resolves when
    /// the brokers answer. Consecutive calls keep their order on the log. Dropping the receipt does
    /// not cancel the event.
    ///
    /// The event begins a trace. While spans are exported (feature `otel`), it belongs to the trace
    /// of the current span instead, if there is one.
    ///
    /// Cancel-safe: a future that is dropped while it waits gives its place to the next caller, and
    /// sends nothing. Beside the buffer it waits while a refused batch of the topic is sent again,
    /// and up to a second for the topic's largest batch.
    ///
    /// # Errors
    /// Returns the errors that are known at once: an invalid payload, a record that is too large
    /// for the client, or a failed client.
    pub async fn enqueue<T: EventType>(
        &self,
        event: &Event<T>,
    ) -> Result<PendingReceipt, PublishError> {
        let mut record = self.encode(event, None)?;
        let span = span::send(&record);
        let trace = trace_of(&span)
            .or_else(current_trace)
            .unwrap_or_else(TraceContext::root);
        trace.write(&mut record.headers);
        self.enqueue_within(span, record).await
    }

    /// Validates and encodes an event without sending it: the record that
    /// [`publish`](Self::publish) would send. For tests, and for records that are stored first.
    ///
    /// # Errors
    /// Returns an error if the payload cannot be serialised or does not match its schema.
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

    /// [`Publisher::publish`] for a record that is already encoded, such as a copy of a received
    /// one. No catalogue validates it.
    ///
    /// # Errors
    /// Returns the errors of [`Publisher::publish`].
    pub async fn publish_record(&self, record: OutgoingRecord) -> Result<Receipt, PublishError> {
        self.enqueue_record(record).await?.await
    }

    /// [`Publisher::enqueue`] for a record that is already encoded.
    ///
    /// # Errors
    /// Returns the errors of [`Publisher::enqueue`].
    pub async fn enqueue_record(
        &self,
        record: OutgoingRecord,
    ) -> Result<PendingReceipt, PublishError> {
        let span = span::send(&record);
        self.enqueue_within(span, record).await
    }

    /// Enqueues a record within its span of sending.
    async fn enqueue_within(
        &self,
        span: Span,
        record: OutgoingRecord,
    ) -> Result<PendingReceipt, PublishError> {
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

    /// Waits until all enqueued records are acknowledged or have failed, up to `deadline`.
    ///
    /// Waits also for records that other tasks enqueue meanwhile. The buffer keeps its content:
    /// records that were not sent by the deadline are still tried while the publisher lives. So a
    /// flush may be called again, and dropping its future changes nothing.
    ///
    /// Give it less time than the process has to end: in a Kubernetes pod, less than the grace
    /// period of 30 s.
    ///
    /// # Errors
    /// Returns the number of records that have neither an acknowledgement nor an error at the
    /// deadline.
    pub async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        self.shared.client.flush(deadline).await
    }

    /// Asks the brokers at once for the partitions of a topic that may have received more.
    pub(crate) async fn look_up(&self, topic: &str) {
        let (shared, topic) = (Arc::clone(&self.shared), topic.to_owned());
        let refresh = move || {
            shared
                .client
                .refresh_partitions(&topic, PARTITIONS_LOOKUP_TIMEOUT)
        };
        // The task panics only if the client does.
        drop(tokio::task::spawn_blocking(refresh).await);
    }
}

/// How long a request for the partitions of a topic may take.
const PARTITIONS_LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Validates and encodes an event. The outbox uses it too.
pub(crate) fn encode<T: EventType>(
    event: &Event<T>,
    mode: ContentMode,
    catalogue: Option<&dyn PayloadValidator>,
    trace: Option<&TraceContext>,
) -> Result<OutgoingRecord, PublishError> {
    let record = event::encode(event, mode, trace)?;
    if let Some(catalogue) = catalogue {
        // Validates the text, as the consumer does: a tree made of the data itself cannot hold
        // every number that the text can.
        let json = match (mode, &record.value) {
            (ContentMode::Binary, Some(json)) => json.clone(),
            _ => serde_json::to_vec(&event.data)?.into(),
        };
        check(catalogue, &event.attributes.ty, &json)??;
    }
    Ok(record)
}
