//! The settings of a publisher.

use super::producer::PartitionOf;
use crate::event::ContentMode;
use crate::kafka::ConfigError;
use crate::schema::PayloadValidator;
use std::sync::Arc;

/// The settings of a publisher. [`PublisherSettings::new`] sets the defaults.
#[derive(Clone)]
pub struct PublisherSettings {
    /// CloudEvents source of the events that this service publishes, for example `/shop/payments`.
    pub source: String,
    /// How an event is encoded in a record: binary (the default) or structured.
    pub content_mode: ContentMode,
    /// Validates payloads before they are sent; usually a [`Catalogue`](crate::schema::Catalogue),
    /// with the feature `json-schema`. None, the default, sends them unchecked.
    pub catalogue: Option<Arc<dyn PayloadValidator>>,
    /// The most bytes of records that are not acknowledged, up to 4 GiB. Default 64 MiB. Enqueuing
    /// waits while the buffer is full. A record larger than this is sent alone.
    pub buffer_bytes_max: usize,
    /// The most records that are not acknowledged. Default 100,000. Enqueuing waits while the
    /// buffer is full.
    pub buffer_records_max: usize,
    /// The service's own function from key to partition, if none of the client's own hashes fits;
    /// see [`PublisherSettings::with_partitioner`]. None, the default, leaves it to the client.
    pub partitioner: Option<Arc<PartitionOf>>,
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
    pub fn with_partitioner(mut self, partitioner: Arc<PartitionOf>) -> Self {
        self.partitioner = Some(partitioner);
        self
    }

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
