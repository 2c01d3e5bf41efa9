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
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long one poll takes. Reports are served as they arrive, within a poll. The thread ends up to
/// this time after the last user of its client.
const POLL: Duration = Duration::from_millis(500);
/// How long a drop waits for the reports of what it purges, and for how long the thread then serves
/// a client that reports nothing.
const PURGE_WITHIN: Duration = Duration::from_millis(500);
/// The same for one poll: another thread may serve the last report meanwhile.
const PURGE_POLL: Duration = Duration::from_millis(10);

/// The client of a producer. Its records carry their deliveries.
type ReportingClient = ProducerClient<Reports, Delivery>;
/// A topic of a producer, to send records to.
pub(super) type SendingTopic = ProducerTopic<Reports, Delivery>;

/// A producer whose reports are served until it is dropped. What was not sent then is reported as
/// purged: by the drop, and after half a second by the thread.
///
/// The thread uses the client last, and ends it. That may take seconds, for example while the
/// client looks up the name of a host, and a caller that drops a publisher must not wait for it.
pub(in crate::publisher) struct PolledProducer {
    topics: Mutex<HashMap<String, Arc<SendingTopic>, RandomState>>,
    client: Arc<ReportingClient>,
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
        let served = Arc::clone(&client);
        let thread = thread::Builder::new().name("evenkeel-reports".to_owned());
        let spawned = thread.spawn(move || serve_until_unused(&served));
        spawned.map_err(|error| {
            KafkaError::ClientCreation(format!("no thread for the delivery reports: {error}"))
        })?;
        Ok(Self {
            topics: Mutex::default(),
            client,
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

/// Serves a client until only the calling thread uses it, and then the reports of what is left.
fn serve_until_unused(client: &Arc<ReportingClient>) {
    while Arc::strong_count(client) > 1 {
        serve(client, POLL);
    }
    // The drop has not waited for the client's threads.
    if let Err(error) = client.purge_and_wait() {
        tracing::debug!(%error, "the records of a dropped producer cannot be purged");
    }
    let mut reported_at = Instant::now();
    while client.unserved() > 0 {
        if serve(client, PURGE_POLL) {
            reported_at = Instant::now();
        } else if reported_at.elapsed() >= PURGE_WITHIN {
            tracing::debug!("some records of a dropped producer were not reported");
            return;
        }
    }
}

/// Serves one event, after waiting for it. Returns whether it had reports.
fn serve(client: &ReportingClient, timeout: Duration) -> bool {
    let Some(mut reports) = client.poll(timeout) else {
        return false;
    };
    let context = client.client().context();
    let released = context.settle(&mut reports);
    // The client frees the records before their room is returned, and tasks are woken.
    drop(reports);
    context.buffer.release(released);
    true
}

impl Drop for PolledProducer {
    fn drop(&mut self) {
        if let Err(error) = self.client.purge() {
            tracing::debug!(%error, "the records of a dropped producer cannot be purged");
        }
        let until = Instant::now() + PURGE_WITHIN;
        while self.client.unserved() > 0 && Instant::now() < until {
            serve(&self.client, PURGE_POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::buffer::Buffer;

    #[test]
    fn a_client_ends_after_its_last_user() {
        let mut config = ClientConfig::new();
        // Nothing listens on port 1.
        config.set("bootstrap.servers", "127.0.0.1:1");
        let reports = Reports {
            buffer: Arc::new(Buffer::new(1, 1)),
            alone: None,
            batch_bytes: 0,
        };
        let producer = PolledProducer::new(&config, reports, &OwnPartitioner::default());
        let producer = producer.expect("the settings are valid");
        let topic = producer.topic("topic").expect("a topic");
        let client = Arc::downgrade(&producer.client);
        drop(producer);
        thread::sleep(2 * POLL);
        assert_eq!(client.strong_count(), 2, "the topic, and the thread");
        drop(topic);
        let deadline = Instant::now() + Duration::from_secs(60);
        while client.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the thread does not end");
            thread::sleep(PURGE_POLL);
        }
    }
}
