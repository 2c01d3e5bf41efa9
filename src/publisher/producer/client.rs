//! The client's producers behind a publisher.
//!
//! Owns the producers and decides which of them sends a record. Knows records, but no events.
//!
//! Most topics accept the client's largest batch, which one request for the topic's settings shows.
//! It is made when a second record of a topic is enqueued while the first is in flight: only then
//! can two records share a batch.

use super::partitioner::OwnPartitioner;
use super::polled_producer::SendingTopic;
use super::reports::{Reports, SendAlone};
use super::single_sender::{NativeProducer, SingleSender, create};
use crate::event::OutgoingRecord;
use crate::kafka::admin::Admin;
use crate::kafka::native::{ToProduce, native_headers};
use crate::kafka::{ConfigError, KafkaConfig, is_topic_name};
use crate::publisher::buffer::Buffer;
use crate::publisher::buffer_limit::Reservation;
use crate::publisher::delivery::{Delivery, PendingReceipt, Topic};
use crate::publisher::error::{PublishError, Unsent, classify};
use crate::publisher::route::SendMode;
use crate::publisher::{PublisherSettings, span};
use foldhash::fast::RandomState;
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;
use tracing::Span;

/// librdkafka's own bound of a batch, in bytes before compression.
const BATCH_BYTES: usize = 1_000_000;
const BATCH_BYTES_PROPERTY: &str = "batch.size";
const BATCH_RECORDS_PROPERTY: &str = "batch.num.messages";

/// How long records wait for the largest batch size that their topic accepts.
const LIMIT_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// The producers of a publisher.
pub(in crate::publisher) struct Client {
    batched: NativeProducer,
    /// Producers for topics that accept only smaller batches, by the bytes of a batch.
    smaller: Mutex<BTreeMap<usize, Arc<NativeProducer>>>,
    alone: Arc<SingleSender>,
    kafka: KafkaConfig,
    partitioner: OwnPartitioner,
    /// The most bytes of a batch. None if each record is a batch of its own.
    batch_bytes: Option<usize>,
    destinations: RwLock<HashMap<String, Arc<Destination>, RandomState>>,
    buffer: Arc<Buffer>,
    /// Whether records that are lost at its end are no reason for an error in the log.
    pub(in crate::publisher) may_lose_records: AtomicBool,
}

/// A topic that records were sent to. Kept as long as the publisher.
struct Destination {
    topic: Arc<Topic>,
    /// For records in batches of the usual size.
    batched: Arc<SendingTopic>,
}

impl Client {
    pub(in crate::publisher) fn new(
        kafka: &KafkaConfig,
        settings: &PublisherSettings,
    ) -> Result<Self, ConfigError> {
        let (bytes_max, records_max) = (settings.buffer_bytes_max, settings.buffer_records_max);
        let buffer = Arc::new(Buffer::new(bytes_max, records_max));
        let partitioner = OwnPartitioner::new(settings.partitioner.clone());
        let config = kafka.producer()?;
        warn_of_partitioner(&config, &partitioner);
        let mut single = config.clone();
        single.set(BATCH_RECORDS_PROPERTY, "1");
        let alone = Arc::new(SingleSender {
            config: single,
            brokers: kafka.brokers.clone(),
            buffer: Arc::clone(&buffer),
            partitioner: partitioner.clone(),
            producer: OnceLock::new(),
        });
        let batches = config.get(BATCH_RECORDS_PROPERTY) != Some("1");
        let batch_bytes = config.get(BATCH_BYTES_PROPERTY);
        let batch_bytes = batch_bytes
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(BATCH_BYTES);
        let reports = Reports {
            buffer: Arc::clone(&buffer),
            alone: batches.then(|| weak(&alone)),
            batch_bytes,
        };
        Ok(Self {
            batched: create(&config, &kafka.brokers, reports, &partitioner)?,
            partitioner,
            smaller: Mutex::default(),
            alone,
            kafka: kafka.clone(),
            batch_bytes: batches.then_some(batch_bytes),
            destinations: RwLock::default(),
            may_lose_records: AtomicBool::new(false),
            buffer,
        })
    }

    /// Waits for room, then enqueues. Two waits follow each other, and both are first come, first
    /// served: for room in the buffer, and for the topic's route. A caller keeps its place in the
    /// first until it is served by the second, so none overtakes it.
    pub(in crate::publisher) async fn enqueue(
        &self,
        record: OutgoingRecord,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        let destination = match self.destination(&record.topic) {
            Ok(destination) => destination,
            Err(code) => return Err(classify(code, 0).into_error(&record.topic)),
        };
        let bytes = size(&record);
        let reservation = self.buffer.room.enter(bytes).await;
        let topic = &destination.topic;
        if let Some(mode) = topic.route.enter() {
            return self.send(record, bytes, reservation, &destination, mode, span);
        }
        let queued = topic.route.queue().await;
        loop {
            if let Some(mode) = queued.enter().await {
                return self.send(record, bytes, reservation, &destination, mode, span);
            }
            let limit = self.limit(&topic.name).await;
            let mode = limit
                .zip(self.batch_bytes)
                .map(|(limit, max)| SendMode::for_limit(limit, max));
            if topic.route.set_batch_limit(mode) {
                self.alone.resend(topic);
            }
        }
    }

    /// The destination of a topic, created at its first record.
    fn destination(&self, topic: &str) -> Result<Arc<Destination>, Code> {
        let destinations = self.destinations.read();
        let destinations = destinations.unwrap_or_else(PoisonError::into_inner);
        if let Some(destination) = destinations.get(topic) {
            return Ok(Arc::clone(destination));
        }
        drop(destinations);
        if !is_topic_name(topic) {
            // The client would accept it and wait for the brokers' answer.
            return Err(Code::InvalidTopic);
        }
        let destinations = self.destinations.write();
        let mut destinations = destinations.unwrap_or_else(PoisonError::into_inner);
        if let Some(destination) = destinations.get(topic) {
            return Ok(Arc::clone(destination));
        }
        let destination = Arc::new(Destination {
            topic: Arc::new(Topic::new(topic, self.batch_bytes.is_some())),
            batched: self.batched.producer.topic(topic)?,
        });
        destinations.insert(topic.to_owned(), Arc::clone(&destination));
        Ok(destination)
    }

    /// The most bytes of a batch that a topic accepts. None if the brokers do not answer in time.
    async fn limit(&self, topic: &str) -> Option<usize> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let lookup = async move {
            let admin = Admin::connect(&kafka, LIMIT_LOOKUP_TIMEOUT).await.ok()?;
            let settings = admin.settings(std::slice::from_ref(&topic)).await.ok();
            let settings = settings?.remove(&topic)?;
            let bytes = |name| settings.get(name)?.value.parse::<usize>().ok();
            let limits = [bytes("max.message.bytes"), bytes("segment.bytes")];
            limits.into_iter().flatten().min()
        };
        let limit = tokio::time::timeout(LIMIT_LOOKUP_TIMEOUT, tokio::spawn(lookup)).await;
        limit.ok()?.ok()?
    }

    fn send(
        &self,
        record: OutgoingRecord,
        bytes: usize,
        reservation: Reservation<'_>,
        destination: &Destination,
        mode: SendMode,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        let (buffer, topic) = (&self.buffer, &destination.topic);
        // Counted before the client has the record: its report may come before `produce` returns.
        let sequence = buffer.enqueued(bytes);
        let delivery = Arc::new(Delivery::new(
            Arc::clone(topic),
            reservation.charge(),
            bytes,
            record.timestamp_ms,
            sequence,
        ));
        let sent = native_headers(&record.headers).and_then(|headers| {
            let to_produce = ToProduce {
                partition: record.partition,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers,
                timestamp_ms: record.timestamp_ms,
            };
            self.produce(mode, destination, to_produce, Arc::clone(&delivery))
        });
        let Err(code) = sent else {
            reservation.keep();
            return Ok(PendingReceipt {
                delivery,
                topic: Some(record.topic),
                span,
            });
        };
        let failure = buffer.failure(code, &delivery);
        if buffer.settle_rejected(&delivery, &failure) {
            self.alone.resend(topic);
        }
        span::end(&span, Err(&failure));
        Err(failure.into_error(&topic.name))
    }

    /// Passes a record to the producer of this mode. Does not block.
    fn produce(
        &self,
        mode: SendMode,
        destination: &Destination,
        record: ToProduce<'_>,
        delivery: Arc<Delivery>,
    ) -> Result<(), Code> {
        let name = &destination.topic.name;
        match mode {
            SendMode::Batched => destination.batched.produce(record, delivery),
            SendMode::Alone => {
                let topic = self.alone.producer()?.producer.topic(name)?;
                topic.produce(record, delivery)
            }
            SendMode::Smaller(bytes) => {
                let producer = self.producer_for_batches_of(bytes)?;
                producer.producer.topic(name)?.produce(record, delivery)
            }
        }
    }

    /// The producer whose batches have at most this many bytes.
    fn producer_for_batches_of(&self, bytes: usize) -> Result<Arc<NativeProducer>, Code> {
        let mut smaller = self.smaller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = smaller.get(&bytes) {
            return Ok(Arc::clone(producer));
        }
        let mut config = self.kafka.producer().map_err(|_| Code::InvalidArgument)?;
        config.set(BATCH_BYTES_PROPERTY, bytes.to_string());
        let reports = Reports {
            buffer: Arc::clone(&self.buffer),
            alone: Some(weak(&self.alone)),
            batch_bytes: bytes,
        };
        let producer = create(&config, &self.kafka.brokers, reports, &self.partitioner);
        let producer = Arc::new(producer.map_err(|_| Code::InvalidArgument)?);
        smaller.insert(bytes, Arc::clone(&producer));
        Ok(producer)
    }

    pub(in crate::publisher) async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        self.buffer.flush(deadline).await
    }

    /// Asks the brokers for the topic's partitions, through the producer that refused a partition
    /// as unknown. Blocks.
    pub(in crate::publisher) fn refresh_partitions(&self, topic: &str, within: Duration) {
        let refreshed = self
            .batched
            .producer
            .client()
            .fetch_metadata(Some(topic), within);
        if let Err(error) = refreshed {
            tracing::debug!(topic, %error, "the partitions of a topic cannot be looked up");
        }
    }
}

/// For the reports of a producer, whose thread may outlive the publisher for a moment.
fn weak(alone: &Arc<SingleSender>) -> Weak<dyn SendAlone> {
    let alone: Arc<dyn SendAlone> = Arc::clone(alone) as _;
    Arc::downgrade(&alone)
}

/// Warns once per partitioner that keys are assigned to other partitions than by most other
/// clients.
fn warn_of_partitioner(config: &ClientConfig, own: &OwnPartitioner) {
    let chosen = match own.get() {
        Some(_) => "the service's own",
        None => config.get("partitioner").unwrap_or_default(),
    };
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let is_usual = own.get().is_none() && chosen.starts_with("murmur2");
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_usual && warned.insert(chosen.to_owned()) {
        tracing::warn!(
            partitioner = chosen,
            "keys are assigned to other partitions than by Java's and Node's clients: all \
             producers of a topic need the same partitioner, or a key has no order"
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let lost = self.buffer.pending();
        if lost > 0 && !self.may_lose_records.load(Ordering::Relaxed) {
            tracing::error!(
                records = lost,
                "the publisher ends with unacknowledged records, which may be lost; flush before \
                 the last clone is dropped"
            );
        }
    }
}

/// The approximate size of a record in memory, and on the wire before compression.
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
