//! A producer with a thread that serves its delivery reports.
//!
//! Why not the bindings' own `ThreadedProducer`: it polls for 100 ms at a time, and the bindings
//! spend the last part of a millisecond of each poll in a busy loop. An idle producer would use
//! 0.7 % of a core. Nor does it tell which reports come together (`kafka/native/producer`).

use super::partitioner::OwnPartitioner;
use super::reports::Reports;
use crate::kafka::native::{ProducerClient, ProducerTopic};
use crate::publisher::delivery::Delivery;
use foldhash::fast::RandomState;
use rdkafka::ClientConfig;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one poll takes. Reports are served as they arrive, within a poll. The thread ends up to
/// this time after its producer was dropped.
const POLL: Duration = Duration::from_millis(500);
/// How long a drop waits for the reports of what it purges.
const PURGE_WITHIN: Duration = Duration::from_millis(500);
/// The same for one poll: another thread may serve the last report meanwhile.
const PURGE_POLL: Duration = Duration::from_millis(10);

/// The client of a producer. Its records carry their deliveries.
type ReportingClient = ProducerClient<Reports, Delivery>;
/// A topic of a producer, to send records to.
pub(super) type SendingTopic = ProducerTopic<Reports, Delivery>;

/// A producer whose reports are served until it is dropped. What was not sent then is reported as
/// purged.
pub(in crate::publisher) struct PolledProducer {
    topics: Mutex<HashMap<String, Arc<SendingTopic>, RandomState>>,
    client: Arc<ReportingClient>,
    is_dropped: Arc<AtomicBool>,
}

impl PolledProducer {
    /// Creates a producer and its thread.
    pub(super) fn new(
        config: &ClientConfig,
        reports: Reports,
        partitioner: &OwnPartitioner,
    ) -> KafkaResult<Self> {
        let client = ProducerClient::new(config, reports, partitioner.get().cloned())?;
        let client = Arc::new(client);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let (polled, ends) = (Arc::clone(&client), Arc::clone(&is_dropped));
        let poll = move || {
            while !ends.load(Ordering::Acquire) {
                serve(&polled, POLL);
            }
            serve_rest(&polled);
        };
        let thread = thread::Builder::new().name("evenkeel-reports".to_owned());
        let spawned = thread.spawn(poll);
        spawned.map_err(|error| {
            KafkaError::ClientCreation(format!("no thread for the delivery reports: {error}"))
        })?;
        Ok(Self {
            topics: Mutex::default(),
            client,
            is_dropped,
        })
    }

    pub(in crate::publisher) fn client(&self) -> &Client<Reports> {
        self.client.client()
    }

    /// A topic of this producer, which is kept as long as the producer.
    pub(super) fn topic(&self, name: &str) -> Result<Arc<SendingTopic>, Code> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(topic) = topics.get(name) {
            return Ok(Arc::clone(topic));
        }
        let topic = Arc::new(self.client.topic(name)?);
        topics.insert(name.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }
}

/// Serves one event, after waiting for it.
fn serve(client: &ReportingClient, timeout: Duration) {
    let Some(mut reports) = client.poll(timeout) else {
        return;
    };
    let context = client.client().context();
    let released = context.settle(&mut reports);
    // The client frees the records. Whoever waits for them comes afterwards.
    drop(reports);
    context.buffer.release(released);
}

/// Serves the reports of a producer that is dropped.
fn serve_rest(client: &ReportingClient) {
    let until = Instant::now() + PURGE_WITHIN;
    while client.unserved() > 0 {
        if Instant::now() >= until {
            tracing::debug!("some records of a dropped producer were not reported");
            return;
        }
        serve(client, PURGE_POLL);
    }
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Release);
        if let Err(error) = self.client.purge() {
            tracing::debug!(%error, "the records of a dropped producer cannot be purged");
        }
        serve_rest(&self.client);
    }
}
