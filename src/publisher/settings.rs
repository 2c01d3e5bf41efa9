//! The settings of a publisher.

use super::producer::PartitionOf;
use crate::event::ContentMode;
use crate::kafka::ConfigError;
use crate::schema::PayloadValidator;
use std::sync::Arc;

/// The settings of a publisher. [`PublisherSettings::new`] sets the defaults.
///
/// | setting | default | bounds or decides |
/// |---|---|---|
/// | [`source`](Self::source) | as given | the identity of the events |
/// | [`content_mode`](Self::content_mode) | binary | the encoding of an event |
/// | [`catalogue`](Self::catalogue) | none | which payloads are refused |
/// | [`buffer_bytes_max`](Self::buffer_bytes_max) | 64 MiB | unacknowledged bytes |
/// | [`buffer_records_max`](Self::buffer_records_max) | 100,000 | unacknowledged records |
/// | [`partitioner`](Self::partitioner) | murmur2 of the key | the partition of a key |
///
/// Batching, compression and timeouts are properties of the client: `linger.ms`, `batch.size`,
/// `compression.type` and `delivery.timeout.ms` of
/// [`KafkaConfig::properties`](crate::kafka::KafkaConfig::properties).
///
/// ```
/// use evenkeel::event::ContentMode;
/// use evenkeel::publisher::PublisherSettings;
///
/// let settings = PublisherSettings::new("/shop/payments")
///     .with_content_mode(ContentMode::Structured)
///     .with_buffer_bytes_max(8 << 20);
/// assert_eq!(settings.buffer_records_max, 100_000);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct PublisherSettings {
    /// CloudEvents source of the events that this service publishes, for example `/shop/payments`.
    /// A URI reference, not empty. Together with its id it identifies an event, so it must be
    /// unique to the service, and it must not change when the service is deployed again. Events
    /// that are created with another source keep that.
    pub source: String,
    /// How an event is encoded in a record: binary (the default) or structured. Consumers of this
    /// library read both.
    pub content_mode: ContentMode,
    /// Validates payloads before they are sent; usually a [`Catalogue`](crate::schema::Catalogue),
    /// with the feature `json-schema`. None, the default, sends them unchecked. A payload that does
    /// not match the schema of its type is [`PublishError::Invalid`](super::PublishError). Records
    /// that are already encoded are not validated.
    pub catalogue: Option<Arc<dyn PayloadValidator>>,
    /// Bounds the bytes of records that are not acknowledged: keys, values and headers. Default
    /// 64 MiB; more than 0 and less than 4 GiB.
    ///
    /// At the bound, enqueuing waits, first come, first served. A record larger than this is sent
    /// alone. While the brokers are down, the buffer fills, and callers wait until its records are
    /// sent or time out (`delivery.timeout.ms`). The brokers' limit of a record is another one:
    /// `max.message.bytes` of the topic.
    pub buffer_bytes_max: usize,
    /// Bounds the records that are not acknowledged. Default 100,000; at least 1.
    ///
    /// At the bound, enqueuing waits. One count bounds both: each record is charged its size, but
    /// at least [`buffer_bytes_max`](Self::buffer_bytes_max) divided by this number, 671 bytes by
    /// default. So the buffer holds fewer records than this if some are larger.
    pub buffer_records_max: usize,
    /// The service's own function from key to partition, if none of the client's own hashes fits;
    /// see [`PublisherSettings::with_partitioner`]. None, the default, leaves it to the client and
    /// its property `partitioner`.
    pub partitioner: Option<Arc<PartitionOf>>,
}

impl std::fmt::Debug for PublisherSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublisherSettings")
            .field("source", &self.source)
            .field("content_mode", &self.content_mode)
            .field("catalogue", &self.catalogue)
            .field("buffer_bytes_max", &self.buffer_bytes_max)
            .field("buffer_records_max", &self.buffer_records_max)
            .field("has_partitioner", &self.partitioner.is_some())
            .finish()
    }
}

impl PublisherSettings {
    /// Creates settings for a source with the defaults: binary mode, unchecked payloads, 64 MiB or
    /// 100,000 records in the buffer.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            content_mode: ContentMode::Binary,
            catalogue: None,
            buffer_bytes_max: 64 << 20,
            buffer_records_max: 100_000,
            partitioner: None,
        }
    }

    /// Sets the [`source`](Self::source).
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the [`content_mode`](Self::content_mode).
    #[must_use]
    pub fn with_content_mode(mut self, mode: ContentMode) -> Self {
        self.content_mode = mode;
        self
    }

    /// Sets the [`catalogue`](Self::catalogue) that validates payloads.
    #[must_use]
    pub fn with_catalogue(mut self, catalogue: Arc<impl PayloadValidator>) -> Self {
        self.catalogue = Some(catalogue);
        self
    }

    /// Sets [`buffer_bytes_max`](Self::buffer_bytes_max).
    #[must_use]
    pub fn with_buffer_bytes_max(mut self, bytes: usize) -> Self {
        self.buffer_bytes_max = bytes;
        self
    }

    /// Sets [`buffer_records_max`](Self::buffer_records_max).
    #[must_use]
    pub fn with_buffer_records_max(mut self, records: usize) -> Self {
        self.buffer_records_max = records;
        self
    }

    /// Assigns keys to partitions by this function of topic, key and the topic's number of
    /// partitions.
    ///
    /// By default keys are assigned as by Java's and Node's clients (murmur2). Before you write a
    /// function, consider the client's property `partitioner`
    /// ([`KafkaConfig::set`](crate::kafka::KafkaConfig::set)): `consistent_random` is the default
    /// of librdkafka's clients (Python, Go, .NET, PHP, Rust), `fnv1a_random` that of Sarama.
    ///
    /// **All producers of a topic need the same partitioner.** If two of them assign a key to
    /// different partitions, its events have no order. After a change of the partitioner, the
    /// events of a key written before and after it have no order until the earlier ones are
    /// handled. Topics that are joined by key need the same partitioner too.
    ///
    /// The client spreads records without a key. The function is called on any thread and must not
    /// block. If it panics or returns a partition that does not exist, the record is refused.
    ///
    /// ```
    /// use evenkeel::publisher::PublisherSettings;
    /// use std::sync::Arc;
    ///
    /// // Keys are account numbers, and each range of them has a partition.
    /// let by_range = |_: &str, key: &[u8], partitions: u32| {
    ///     let key = std::str::from_utf8(key).unwrap_or_default();
    ///     let account: u32 = key.parse().unwrap_or(0);
    ///     account / 1_000_000 % partitions
    /// };
    /// let settings = PublisherSettings::new("/bank").with_partitioner(Arc::new(by_range));
    /// ```
    #[must_use]
    pub fn with_partitioner(mut self, partitioner: Arc<PartitionOf>) -> Self {
        self.partitioner = Some(partitioner);
        self
    }

    /// Checks the settings. [`Publisher::new`](super::Publisher::new) calls it.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
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
