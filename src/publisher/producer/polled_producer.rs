//! A producer with a thread that serves its delivery reports.
//!
//! Why not the bindings' own `ThreadedProducer`: it polls for 100 ms at a time, and the bindings
//! spend the last part of a millisecond of each poll in a busy loop. An idle producer would use
//! 0.7 % of a core.

use super::partitioner::OwnPartitioner;
use super::reports::Reports;
use crate::publisher::delivery::Delivery;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, PurgeConfig};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::util::Timeout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long one poll takes. Reports are served as they arrive, within a poll. The thread ends up to
/// this time after its producer was dropped.
const POLL: Duration = Duration::from_millis(500);
/// How long a drop waits for the reports of what it purges.
const PURGE_WITHIN: Duration = Duration::from_millis(500);

/// A producer whose reports are served until it is dropped. What was not sent then is reported as
/// purged.
pub(in crate::publisher) struct PolledProducer {
    producer: Arc<BaseProducer<Reports, OwnPartitioner>>,
    is_dropped: Arc<AtomicBool>,
}

impl PolledProducer {
    /// Creates a producer and its thread.
    pub(super) fn new(config: &ClientConfig, reports: Reports) -> KafkaResult<Self> {
        let producer: BaseProducer<_, _> = config.create_with_context(reports)?;
        let producer = Arc::new(producer);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let (polled, ends) = (Arc::clone(&producer), Arc::clone(&is_dropped));
        let poll = move || {
            while !ends.load(Ordering::Acquire) {
                polled.poll(POLL);
            }
        };
        let thread = thread::Builder::new().name("evenkeel-reports".to_owned());
        let spawned = thread.spawn(poll);
        spawned.map_err(|error| {
            KafkaError::ClientCreation(format!("no thread for the delivery reports: {error}"))
        })?;
        Ok(Self {
            producer,
            is_dropped,
        })
    }

    pub(in crate::publisher) fn client(&self) -> &Client<Reports> {
        self.producer.client()
    }

    /// Passes a record to the client without blocking. On an error the client has kept nothing, and
    /// sends no report.
    pub(super) fn send(
        &self,
        record: BaseRecord<'_, [u8], [u8], Arc<Delivery>>,
    ) -> Result<(), Code> {
        self.producer.send(record).map_err(|(error, refused)| {
            drop(refused);
            error.rdkafka_error_code().unwrap_or(Code::InvalidArgument)
        })
    }
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Release);
        self.producer
            .purge(PurgeConfig::default().queue().inflight());
        if let Err(error) = self.producer.flush(Timeout::After(PURGE_WITHIN)) {
            tracing::debug!(%error, "some records of a dropped producer were not reported");
        }
    }
}
