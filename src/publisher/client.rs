//! The client's producers behind a publisher.
//!
//! Owns the producers and which of them sends a record. Knows records, but no events.

use super::buffer::Buffer;
use super::delivery::{Delivery, PendingReceipt};
use super::error::{PublishError, Unsent, classify};
use super::reports::Reports;
use super::room::Entry;
use super::route::{Resend, Route, Way, overtaken};
use super::span;
use crate::event::OutgoingRecord;
use crate::kafka::admin::Admin;
use crate::kafka::queue::{Watched, native_headers};
use crate::kafka::{ConfigError, KafkaConfig, is_topic_name};
use foldhash::fast::RandomState;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use tracing::Span;

/// librdkafka's own bound of a batch, in bytes before compression.
const BATCH_BYTES: usize = 1_000_000;
const BATCH_BYTES_PROPERTY: &str = "batch.size";
const BATCH_RECORDS_PROPERTY: &str = "batch.num.messages";

/// How long records wait for the answer how large a batch their topic takes.
const LIMIT_WITHIN: Duration = Duration::from_secs(1);

/// A producer with a thread of its own that serves delivery reports.
struct Native {
    // Before the producer: it must go first.
    _watched: Watched,
    producer: ThreadedProducer<Reports>,
}

/// The producers of a publisher.
pub(super) struct Client {
    batched: Native,
    /// For topics that take smaller batches only, by bytes of a batch.
    smaller: Mutex<BTreeMap<usize, Arc<Native>>>,
    alone: Arc<Alone>,
    kafka: KafkaConfig,
    /// Bytes of a batch at most; none where each record is a batch.
    batch_bytes: Option<usize>,
    routes: RwLock<HashMap<String, Arc<Route>, RandomState>>,
    /// Numbers records in the order in which they are handed over.
    sequence: AtomicU64,
    buffer: Arc<Buffer>,
}

/// Sends each record in a batch of its own, through a producer that is made when it is first needed.
pub(super) struct Alone {
    config: ClientConfig,
    brokers: String,
    buffer: Arc<Buffer>,
    producer: OnceLock<Native>,
}

impl Client {
    pub(super) fn new(
        kafka: &KafkaConfig,
        bytes_max: usize,
        records_max: usize,
    ) -> Result<Self, ConfigError> {
        let buffer = Arc::new(Buffer::new(bytes_max, records_max));
        let config = kafka.producer()?;
        let mut single = config.clone();
        single.set(BATCH_RECORDS_PROPERTY, "1");
        let alone = Arc::new(Alone {
            config: single,
            brokers: kafka.brokers.clone(),
            buffer: Arc::clone(&buffer),
            producer: OnceLock::new(),
        });
        let batches = config.get(BATCH_RECORDS_PROPERTY) != Some("1");
        let batch_bytes = config.get(BATCH_BYTES_PROPERTY);
        let batch_bytes = batch_bytes
            .and_then(|bytes| bytes.parse().ok())
            .unwrap_or(BATCH_BYTES);
        let reports = Reports {
            buffer: Arc::clone(&buffer),
            alone: batches.then(|| Arc::clone(&alone)),
            batch_bytes,
        };
        Ok(Self {
            batched: create(&config, &kafka.brokers, reports)?,
            smaller: Mutex::default(),
            alone,
            kafka: kafka.clone(),
            batch_bytes: batches.then_some(batch_bytes),
            routes: RwLock::default(),
            sequence: AtomicU64::new(0),
            buffer,
        })
    }

    /// Waits for room, then enqueues.
    pub(super) async fn enqueue(
        &self,
        record: OutgoingRecord,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        if !is_topic_name(&record.topic) {
            // The client would take it and wait for the brokers to say so.
            let failure = classify(Code::InvalidTopic, 0);
            return Err(failure.into_error(&record.topic));
        }
        let bytes = size(&record);
        let entry = self.buffer.room.enter(bytes).await;
        let route = self.route(&record.topic);
        if let Some(way) = route.enter() {
            return self.send(record, bytes, entry, Arc::clone(&route), way, span);
        }
        let queued = route.queue().await;
        loop {
            if let Some(way) = queued.enter().await {
                return self.send(record, bytes, entry, Arc::clone(&route), way, span);
            }
            let limit = self.limit(&record.topic).await;
            let way = limit
                .zip(self.batch_bytes)
                .map(|(limit, max)| Way::within(limit, max));
            if route.learn(way) {
                self.alone.resend(&route);
            }
        }
    }

    fn route(&self, topic: &str) -> Arc<Route> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = routes.get(topic) {
            return Arc::clone(route);
        }
        drop(routes);
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let route = routes.entry(topic.to_owned());
        Arc::clone(route.or_insert_with(|| Arc::new(Route::new(self.batch_bytes.is_some()))))
    }

    /// Bytes of the largest batch that a topic takes; none where nobody says so in time.
    async fn limit(&self, topic: &str) -> Option<usize> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let ask = async move {
            let admin = Admin::connect(&kafka, LIMIT_WITHIN).await.ok()?;
            let settings = admin.settings(std::slice::from_ref(&topic)).await.ok();
            let settings = settings?.remove(&topic)?;
            let bytes = |name| settings.get(name)?.value.parse::<usize>().ok();
            let limits = [bytes("max.message.bytes"), bytes("segment.bytes")];
            limits.into_iter().flatten().min()
        };
        let asked = tokio::time::timeout(LIMIT_WITHIN, tokio::spawn(ask)).await;
        asked.ok()?.ok()?
    }

    fn send(
        &self,
        record: OutgoingRecord,
        bytes: usize,
        entry: Entry<'_>,
        route: Arc<Route>,
        way: Way,
        span: Span,
    ) -> Result<PendingReceipt, PublishError> {
        let buffer = &self.buffer;
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let delivery = Delivery::new(
            record.topic,
            entry.charge(),
            bytes,
            Arc::clone(&route),
            sequence,
        );
        let delivery = Arc::new(delivery);
        let mut native =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&delivery.topic, Arc::clone(&delivery));
        native.partition = record.partition;
        native.key = record.key.as_deref();
        native.payload = record.value.as_deref();
        native.timestamp = record.timestamp_ms;
        // Counted before the client has it, because its report may come before `send` returns.
        buffer.enqueued(bytes);
        let sent = match native_headers(&record.headers) {
            Ok(headers) => {
                native.headers = (!record.headers.is_empty()).then_some(headers);
                self.send_by(way, native)
            }
            Err(code) => Err(code),
        };
        let Err(code) = sent else {
            entry.keep();
            return Ok(PendingReceipt { delivery, span });
        };
        let failure = buffer.failure(code, &delivery);
        buffer.not_enqueued(&delivery, &failure);
        if route.leave() {
            self.alone.resend(&route);
        }
        span::end(&span, Err(&failure));
        Err(failure.into_error(&delivery.topic))
    }

    fn send_by(
        &self,
        way: Way,
        record: BaseRecord<'_, [u8], [u8], Arc<Delivery>>,
    ) -> Result<(), Code> {
        match way {
            Way::Batched => hand_over(&self.batched, record),
            Way::Alone => hand_over(self.alone.producer()?, record),
            Way::Smaller(bytes) => hand_over(&*self.smaller(bytes)?, record),
        }
    }

    /// The producer whose batches have at most so many bytes.
    fn smaller(&self, bytes: usize) -> Result<Arc<Native>, Code> {
        let mut smaller = self.smaller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = smaller.get(&bytes) {
            return Ok(Arc::clone(producer));
        }
        let mut config = self.kafka.producer().map_err(|_| Code::InvalidArgument)?;
        config.set(BATCH_BYTES_PROPERTY, bytes.to_string());
        let reports = Reports {
            buffer: Arc::clone(&self.buffer),
            alone: Some(Arc::clone(&self.alone)),
            batch_bytes: bytes,
        };
        let producer =
            create(&config, &self.kafka.brokers, reports).map_err(|_| Code::InvalidArgument)?;
        let producer = Arc::new(producer);
        smaller.insert(bytes, Arc::clone(&producer));
        Ok(producer)
    }

    pub(super) async fn flush(&self, deadline: Duration) -> Result<(), Unsent> {
        self.buffer.flush(deadline).await
    }

    /// Asks the brokers for the topic's partitions, for the producer that refused one as unknown. Blocks.
    pub(super) fn look_up(&self, topic: &str, within: Duration) {
        let asked = self
            .batched
            .producer
            .client()
            .fetch_metadata(Some(topic), within);
        if let Err(error) = asked {
            tracing::debug!(topic, %error, "the partitions of a topic cannot be looked up");
        }
    }
}

impl Alone {
    fn producer(&self) -> Result<&Native, Code> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let reports = Reports {
            buffer: Arc::clone(&self.buffer),
            alone: None,
            batch_bytes: 0,
        };
        let producer = create(&self.config, &self.brokers, reports).map_err(|error| {
            tracing::error!(%error, "no producer for single records");
            Code::InvalidArgument
        })?;
        Ok(self.producer.get_or_init(|| producer))
    }

    /// Sends what was refused, once nothing else of the topic is under way.
    pub(super) fn resend(&self, route: &Arc<Route>) {
        let refused = route.take_refused();
        if let Some((record, _)) = refused.first() {
            let topic = &record.delivery.topic;
            tracing::info!(
                topic,
                records = refused.len(),
                reason = %record.code,
                "the brokers refused batches of records; each record is sent alone"
            );
        }
        for (record, is_overtaken) in refused {
            let delivery = Arc::clone(&record.delivery);
            let failure = if is_overtaken {
                overtaken()
            } else {
                match self.send(record) {
                    Ok(()) => continue,
                    Err(code) => self.buffer.failure(code, &delivery),
                }
            };
            self.buffer.settle(&delivery, Err(failure));
            if route.leave() {
                // The last one: the route opens.
                drop(route.take_refused());
            }
        }
    }

    fn send(&self, record: Resend) -> Result<(), Code> {
        let producer = self.producer()?;
        let Resend {
            delivery,
            partition,
            key,
            value,
            headers,
            timestamp_ms,
            ..
        } = record;
        let opaque = Arc::clone(&delivery);
        let mut native = BaseRecord::<[u8], [u8], _>::with_opaque_to(&delivery.topic, opaque);
        native.partition = Some(partition);
        native.key = key.as_deref();
        native.payload = value.as_deref();
        native.headers = headers;
        native.timestamp = timestamp_ms;
        hand_over(producer, native)
    }
}

fn create(config: &ClientConfig, brokers: &str, reports: Reports) -> Result<Native, ConfigError> {
    let producer: ThreadedProducer<Reports> = config
        .create_with_context(reports)
        .map_err(ConfigError::from_client)?;
    Ok(Native {
        _watched: Watched::new(producer.client(), brokers, None),
        producer,
    })
}

fn hand_over(
    producer: &Native,
    record: BaseRecord<'_, [u8], [u8], Arc<Delivery>>,
) -> Result<(), Code> {
    producer.producer.send(record).map_err(|(error, refused)| {
        drop(refused);
        error.rdkafka_error_code().unwrap_or(Code::InvalidArgument)
    })
}

impl Drop for Client {
    fn drop(&mut self) {
        let lost = self.buffer.pending();
        if lost > 0 {
            tracing::error!(
                records = lost,
                "the publisher ends with unacknowledged records, which may be lost; flush before the last clone is dropped"
            );
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
