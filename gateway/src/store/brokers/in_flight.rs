//! The events that were passed to the publisher and are not settled.
//!
//! Owns the wait for their receipts, which goes on if the caller leaves, and the numbers and places
//! that come of it. Receipts are read also while the next event of their request waits for room:
//! the measured backlog and its age are those of events without a receipt. Knows no publisher.

use super::super::port::{Backlog, EventPlace};
use super::places::Places;
use super::settled::Settled;
use evenkeel::publisher::{PendingReceipt, PublishError, Receipt};
use std::collections::{BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::runtime::Handle;
use tokio::time::Instant;

/// What was passed to the publisher, of all requests.
#[derive(Debug, Default)]
pub(super) struct Sent {
    places: Mutex<Places>,
    /// Of each request in flight, when its oldest unsettled event was passed, and its number.
    oldest: Mutex<BTreeSet<(Instant, u64)>>,
    requests: AtomicU64,
    unacknowledged: AtomicU64,
    acknowledged: AtomicU64,
    /// Why the producer is unusable.
    failed: OnceLock<String>,
}

impl Sent {
    /// Remembers the first permanent failure of the producer.
    pub(super) fn note_failure(&self, error: &PublishError) {
        if let PublishError::Fatal(reason) = error {
            self.failed.get_or_init(|| reason.clone());
        }
    }

    /// Why the producer is unusable, if it is.
    pub(super) fn failed(&self) -> Option<String> {
        self.failed.get().cloned()
    }

    /// The events that wait for their acknowledgement.
    pub(super) fn backlog(&self) -> Backlog {
        let oldest = self.oldest().first().copied();
        Backlog {
            events: self.unacknowledged.load(Ordering::Relaxed),
            oldest_age: oldest.map(|(passed_at, _)| passed_at.elapsed()),
            drained: self.acknowledged.load(Ordering::Relaxed),
        }
    }

    /// The places of the last acknowledged events.
    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn oldest(&self) -> MutexGuard<'_, BTreeSet<(Instant, u64)>> {
        self.oldest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that another event is now the oldest unsettled one of this request, or none.
    fn replace_oldest(&self, request: u64, previous: Option<Instant>, next: Option<Instant>) {
        let mut oldest = self.oldest();
        if let Some(passed_at) = previous {
            oldest.remove(&(passed_at, request));
        }
        if let Some(passed_at) = next {
            oldest.insert((passed_at, request));
        }
    }
}

/// The events of one request that were passed to the publisher.
///
/// They are settled in place, which spares a task. If the caller leaves before, be it between two
/// events, a task settles the rest: their places are kept, and they count until then.
pub(super) struct Passed {
    sent: Arc<Sent>,
    /// The events of the request.
    events_asked: usize,
    /// None before the first event.
    in_flight: Option<InFlight>,
}

impl Passed {
    /// A request of this many events that has passed none yet.
    pub(super) fn new(sent: &Arc<Sent>, events_asked: usize) -> Self {
        Self {
            sent: Arc::clone(sent),
            events_asked,
            in_flight: None,
        }
    }

    /// Adds the next event of the request, and counts it as unacknowledged.
    pub(super) fn add(&mut self, place: EventPlace, receipt: PendingReceipt) {
        let in_flight = self
            .in_flight
            .get_or_insert_with(|| InFlight::begin(&self.sent, self.events_asked));
        in_flight.add(place, receipt);
    }

    /// The events that were added.
    pub(super) fn events(&self) -> usize {
        self.in_flight
            .as_ref()
            .map_or(0, |in_flight| in_flight.events)
    }

    /// Awaits `wait`, and settles the events whose receipts arrive meanwhile. A wait that is over
    /// at once reads none.
    pub(super) async fn settle_during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        match &mut self.in_flight {
            Some(in_flight) => in_flight.settle_during(wait).await,
            None => wait.await,
        }
    }

    /// Awaits all receipts, and keeps the places of the acknowledged events. Returns what became of
    /// all events.
    pub(super) async fn settle(&mut self) -> Settled {
        let Some(in_flight) = &mut self.in_flight else {
            return Settled::default();
        };
        in_flight.settle().await;
        std::mem::take(&mut in_flight.settled)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Without a runtime, the process ends.
        if let Some(mut in_flight) = self.in_flight.take()
            && !in_flight.pending.is_empty()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { in_flight.settle().await });
        }
    }
}

/// A request with events that are not settled. Dropped, they no longer count.
struct InFlight {
    sent: Arc<Sent>,
    request: u64,
    /// The events that were added.
    events: usize,
    /// Those that are not settled, in the order of the request.
    pending: VecDeque<Pending>,
    /// What became of the others.
    settled: Settled,
}

/// An event without a receipt.
struct Pending {
    place: EventPlace,
    receipt: PendingReceipt,
    passed_at: Instant,
}

impl InFlight {
    fn begin(sent: &Arc<Sent>, events_asked: usize) -> Self {
        Self {
            sent: Arc::clone(sent),
            request: sent.requests.fetch_add(1, Ordering::Relaxed),
            events: 0,
            pending: VecDeque::with_capacity(events_asked),
            settled: Settled::default(),
        }
    }

    fn add(&mut self, place: EventPlace, receipt: PendingReceipt) {
        let passed_at = Instant::now();
        if self.pending.is_empty() {
            self.sent
                .replace_oldest(self.request, None, Some(passed_at));
        }
        self.sent.unacknowledged.fetch_add(1, Ordering::Relaxed);
        self.events += 1;
        self.pending.push_back(Pending {
            place,
            receipt,
            passed_at,
        });
    }

    async fn settle_during<T>(&mut self, wait: impl Future<Output = T>) -> T {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                output = &mut wait => return output,
                () = self.settle_next(), if !self.pending.is_empty() => {}
            }
        }
    }

    async fn settle(&mut self) {
        while !self.pending.is_empty() {
            self.settle_next().await;
        }
    }

    /// Awaits the receipt of the first pending event. The event stays in the queue until its
    /// receipt is there: a dropped wait loses none.
    async fn settle_next(&mut self) {
        let Some(first) = self.pending.front_mut() else {
            return;
        };
        let outcome = (&mut first.receipt).await;
        self.record_outcome(outcome);
    }

    /// Records the outcome of the first pending event.
    fn record_outcome(&mut self, outcome: Result<Receipt, PublishError>) {
        let index = self.events - self.pending.len();
        let Some(Pending {
            mut place,
            passed_at,
            ..
        }) = self.pending.pop_front()
        else {
            return;
        };
        match outcome {
            Ok(receipt) => {
                place.topic = receipt.topic;
                // A repeated batch is acknowledged without its offset.
                place.position =
                    (receipt.offset >= 0).then_some((receipt.partition, receipt.offset));
                self.sent.places().add(place);
                self.sent.acknowledged.fetch_add(1, Ordering::Relaxed);
                self.settled.acknowledge();
            }
            Err(error) => {
                self.sent.note_failure(&error);
                self.settled.fail(index, error);
            }
        }
        let next = self.pending.front().map(|pending| pending.passed_at);
        self.sent
            .replace_oldest(self.request, Some(passed_at), next);
        self.sent.unacknowledged.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let first = self.pending.front().map(|pending| pending.passed_at);
        self.sent.replace_oldest(self.request, first, None);
        self.sent
            .unacknowledged
            .fetch_sub(self.pending.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{TOPIC, WITHIN, event};
    use super::*;
    use evenkeel::kafka::KafkaConfig;
    use evenkeel::publisher::{Publisher, PublisherSettings};
    use evenkeel::testing::{KafkaKind, TestKafka};
    use std::time::Duration;

    fn publisher(kafka: &KafkaConfig) -> Publisher {
        let settings = PublisherSettings::new("/gateway");
        Publisher::new(kafka, settings).expect("the settings of the publisher are valid")
    }

    /// Passes an event with this id to the publisher.
    async fn pass(passed: &mut Passed, publisher: &Publisher, id: &str) {
        let event = event("k", id, "1");
        let receipt = publisher.enqueue_record(event.record).await;
        let place = EventPlace::new(event.source, event.id, event.ty, TOPIC.to_owned(), 0);
        passed.add(place, receipt.expect("the buffer has room"));
    }

    #[tokio::test]
    async fn the_age_is_that_of_the_oldest_event_without_a_receipt() {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster starts");
        kafka.create_topic(TOPIC, 1).await.expect("a topic");
        let answering = publisher(&kafka.config());
        // Nothing listens there.
        let stalled = publisher(&KafkaConfig::new("127.0.0.1:1"));
        let sent = Arc::new(Sent::default());
        let mut passed = Passed::new(&sent, 2);
        tokio::time::pause();
        pass(&mut passed, &answering, "1").await;
        let age = Duration::from_secs(10);
        tokio::time::advance(age).await;
        pass(&mut passed, &stalled, "2").await;
        assert_eq!(sent.backlog().oldest_age, Some(age));
        // The paused clock moves for no time-out.
        let begun = std::time::Instant::now();
        let acknowledged = async {
            while sent.backlog().drained == 0 {
                assert!(begun.elapsed() < WITHIN, "no receipt is read");
                tokio::task::yield_now().await;
            }
        };
        passed.settle_during(acknowledged).await;
        let expected = Backlog {
            events: 1,
            oldest_age: Some(Duration::ZERO),
            drained: 1,
        };
        assert_eq!(sent.backlog(), expected);
        drop(passed);
        tokio::task::yield_now().await;
        assert_eq!(sent.backlog(), expected, "it counts without its caller");
    }
}
