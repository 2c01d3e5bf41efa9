//! A client whose events are served around its requests.
//!
//! The client queues log lines and errors until somebody polls it. Nothing else polls one that only
//! makes requests: without this, its queue grows for as long as it lives.

use super::connection_fault::{
    FAULT_VALID_FOR, LastFault, discard_old_events, serve_queued_events,
};
use rdkafka::consumer::BaseConsumer;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A client for requests, which several threads may make at a time. It consumes nothing.
pub(crate) struct ServedClient {
    client: BaseConsumer<LastFault>,
    usage: Mutex<Usage>,
}

/// Who polls the client.
struct Usage {
    /// Requests under way.
    requests: usize,
    /// When the client was polled last.
    polled_at: Instant,
}

impl ServedClient {
    pub(crate) fn new(client: BaseConsumer<LastFault>) -> Self {
        Self {
            client,
            usage: Mutex::new(Usage {
                requests: 0,
                polled_at: Instant::now(),
            }),
        }
    }

    /// The client, which knows why its connections failed.
    pub(crate) fn get(&self) -> &BaseConsumer<LastFault> {
        &self.client
    }

    /// Begins a request, which lasts until the result is dropped: then the client's events are
    /// served. The faults of connections while there was none for long do not explain it. May block
    /// for some milliseconds.
    #[must_use = "the request lasts until this is dropped"]
    pub(crate) fn begin(&self) -> ServedRequest<'_> {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> ServedRequest<'_> {
        let mut usage = self.usage();
        let unpolled = now.saturating_duration_since(usage.polled_at);
        if usage.requests == 0 && unpolled >= FAULT_VALID_FOR {
            discard_old_events(&self.client);
        }
        usage.requests += 1;
        ServedRequest(self)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request under way.
pub(crate) struct ServedRequest<'a>(&'a ServedClient);

impl Drop for ServedRequest<'_> {
    fn drop(&mut self) {
        serve_queued_events(&self.0.client);
        let mut usage = self.0.usage();
        usage.requests -= 1;
        usage.polled_at = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::native::queued_events;
    use rdkafka::ClientConfig;
    use rdkafka::config::RDKafkaLogLevel;
    use rdkafka::consumer::Consumer;
    use rdkafka::mocking::MockCluster;
    use std::time::Duration;

    /// Longer than any step takes on a busy machine.
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_request_serves_the_events_of_its_client() {
        // Nothing listens on port 1.
        let client = ClientConfig::new()
            .set("bootstrap.servers", "127.0.0.1:1")
            .create_with_context(LastFault::default());
        let client = ServedClient::new(client.expect("the settings are valid"));
        let fault = || client.get().context().get();
        let begun = Instant::now();
        while fault().is_none() {
            let _request = client.begin();
            let answer = client
                .get()
                .fetch_metadata(None, Duration::from_millis(100));
            answer.expect_err("no broker answers");
            assert!(begun.elapsed() < LONG, "no event is served");
        }
        let cause = fault().expect("there is one").cause;
        assert!(cause.contains("refused"), "{cause}");
        // Requests that follow each other share it, and so do those that run together.
        let first = client.begin_at(begun);
        let second = client.begin_at(Instant::now() + FAULT_VALID_FOR);
        assert!(fault().is_some());
        drop((first, second));
        let _later = client.begin_at(Instant::now() + FAULT_VALID_FOR);
        assert_eq!(fault(), None, "it is from before the request");
    }

    #[test]
    fn a_request_leaves_no_event_behind_however_many_there_are() {
        const EVENTS: usize = 1_000;
        let cluster = MockCluster::new(1).expect("the mock cluster starts");
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers());
        config.set("debug", "all");
        config.set_log_level(RDKafkaLogLevel::Debug);
        let client = config.create_with_context(LastFault::default());
        let client = ServedClient::new(client.expect("the settings are valid"));
        let queued = || queued_events(client.get().client());
        let begun = Instant::now();
        while queued() < EVENTS {
            let answer = client.get().fetch_metadata(None, LONG);
            answer.expect("the mock cluster answers");
            assert!(begun.elapsed() < LONG, "too few log lines: {}", queued());
        }
        // It follows the last one shortly, so that it keeps what was reported before.
        drop(client.begin_at(begun));
        let left = queued();
        // Some of the time of serving.
        assert!(left < EVENTS / 2, "{left} events are left");
    }
}
