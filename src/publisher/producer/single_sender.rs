//! Sends each record in a batch of its own.
//!
//! Its producer has `batch.num.messages=1`, so a refusal concerns exactly one record. Records are
//! passed to it in their order, and an idempotent producer keeps the order of its requests, so the
//! key order is kept too.

use super::partitioner::OwnPartitioner;
use super::polled_producer::PolledProducer;
use super::reports::{Reports, SendAlone};
use crate::kafka::ConfigError;
use crate::kafka::native::{Login, ToProduce, Watched};
use crate::publisher::buffer::Buffer;
use crate::publisher::delivery::{Resend, Topic};
use crate::publisher::route::overtaken_failure;
use rdkafka::ClientConfig;
use rdkafka::types::RDKafkaErrorCode as Code;
use std::sync::{Arc, OnceLock};

/// A producer with a thread of its own that serves delivery reports.
pub(in crate::publisher) struct NativeProducer {
    // Fields drop in order: both must be dropped before the producer.
    pub(in crate::publisher) _watched: Watched,
    pub(in crate::publisher) _login: Login,
    pub(in crate::publisher) producer: PolledProducer,
}

/// Sends each record in a batch of its own, through a producer that is created at first use.
pub(in crate::publisher) struct SingleSender {
    pub(in crate::publisher) config: ClientConfig,
    pub(in crate::publisher) brokers: String,
    pub(in crate::publisher) buffer: Arc<Buffer>,
    pub(in crate::publisher) partitioner: OwnPartitioner,
    pub(in crate::publisher) producer: OnceLock<NativeProducer>,
}

impl SendAlone for SingleSender {
    fn resend(&self, topic: &Topic) {
        let refused = topic.route.take_refused();
        if let Some((record, _)) = refused.first() {
            tracing::info!(
                topic = topic.name,
                records = refused.len(),
                reason = %record.code,
                "the brokers refused batches of records; each record is sent alone"
            );
        }
        for (record, is_overtaken) in refused {
            let delivery = Arc::clone(&record.delivery);
            let failure = if is_overtaken {
                overtaken_failure()
            } else {
                match self.send(record) {
                    Ok(()) => continue,
                    Err(code) => self.buffer.failure(code, &delivery),
                }
            };
            if self.buffer.settle_one(&delivery, Err(failure)) {
                // The last one was settled: the route opens.
                drop(topic.route.take_refused());
            }
        }
    }
}

impl SingleSender {
    pub(in crate::publisher) fn producer(&self) -> Result<&NativeProducer, Code> {
        if let Some(producer) = self.producer.get() {
            return Ok(producer);
        }
        let reports = Reports {
            buffer: Arc::clone(&self.buffer),
            alone: None,
            batch_bytes: 0,
        };
        let producer = create(&self.config, &self.brokers, reports, &self.partitioner);
        let producer = producer.map_err(|error| {
            tracing::error!(%error, "cannot create the producer for single records");
            Code::InvalidArgument
        })?;
        Ok(self.producer.get_or_init(|| producer))
    }

    /// Passes one record to the producer, with the partition that it had before.
    fn send(&self, record: Resend) -> Result<(), Code> {
        let topic = self
            .producer()?
            .producer
            .topic(&record.delivery.topic.name)?;
        let to_produce = ToProduce {
            partition: Some(record.partition),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: record.headers,
            timestamp_ms: record.delivery.timestamp_ms,
        };
        topic.produce(to_produce, Arc::clone(&record.delivery))
    }
}

/// Creates a producer with its login, watched against the loss of all brokers.
pub(in crate::publisher) fn create(
    config: &ClientConfig,
    brokers: &str,
    reports: Reports,
    partitioner: &OwnPartitioner,
) -> Result<NativeProducer, ConfigError> {
    let producer = PolledProducer::new(config, reports, partitioner);
    let producer = producer.map_err(ConfigError::from_client)?;
    Ok(NativeProducer {
        _watched: Watched::new(producer.client(), brokers, None),
        _login: Login::new(producer.client(), config),
        producer,
    })
}
