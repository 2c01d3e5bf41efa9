//! The store that is the brokers: an event is accepted when all in-sync replicas have it.
//!
//! Owns the wait for acknowledgements. Keeps no identities: consumers recognise a repeated event by
//! its id.

use super::super::error::AcceptError;
use super::super::maintenance::now_ms;
use super::super::port::{
    AcceptRequest, AcceptStore, Accepted, AcceptedEvent, Backlog, EventPlace,
};
use super::places::Places;
use super::settled::{Settled, Stopped, refusal, unknown, unusable};
use bytes::Bytes;
use evenkeel::event::OutgoingRecord;
use evenkeel::inbox::BoxFuture;
use evenkeel::publisher::{PendingReceipt, PublishError, Publisher};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

/// How long a request waits for room in the publisher's buffer, unless its deadline is earlier. The
/// second record of a topic may wait a second for the topic's settings, which is no lack of room.
const ROOM_LIMIT: Duration = Duration::from_secs(2);

/// Accepts events by publishing them: an event is accepted when the brokers have acknowledged it.
///
/// No store is needed, and nothing is kept that would recognise a repetition: a request with an
/// `Idempotency-Key` is refused with [`AcceptError::NoIdentities`]. A repeated event is published
/// again, and consumers suppress it by its id.
///
/// The events of a request are sent together. If only some of them are acknowledged, the result is
/// [`AcceptError::Unknown`]: the caller repeats the request with the same ids. If one of them can
/// never be published, it is [`AcceptError::Rejected`], whose text names that event and how many
/// others were published. Memory is bounded by the buffer of the publisher, and by the places of
/// the last 100,000 events, about 500 bytes each. Other gateways do not know these places.
///
/// A producer that fails permanently accepts nothing more: see [`AcceptStore::failed`].
///
/// Flush the publisher before the process ends.
///
/// # Examples
/// ```no_run
/// use evenkeel::kafka::KafkaConfig;
/// use evenkeel::publisher::{Publisher, PublisherSettings};
/// use evenkeel_gateway::store::BrokerStore;
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = PublisherSettings::new("/gateway");
/// let publisher = Publisher::new(&KafkaConfig::new("localhost:9092"), settings)?;
/// let store = BrokerStore::new(publisher);
/// # let _ = store;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BrokerStore {
    publisher: Publisher,
    sent: Arc<Sent>,
}

impl BrokerStore {
    /// Creates a store on this publisher, which other parts may use too.
    pub fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            sent: Arc::default(),
        }
    }

    async fn publish(&self, request: AcceptRequest) -> Result<Accepted, AcceptError> {
        let AcceptRequest {
            events,
            idempotency,
            deadline,
            ..
        } = request;
        if idempotency.is_some() {
            return Err(AcceptError::NoIdentities);
        }
        if let Some(reason) = self.failed() {
            return Err(unusable(reason));
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(AcceptError::DeadlineExceeded);
        }
        let room_limit = now + ROOM_LIMIT;
        let room_limit = deadline.map_or(room_limit, |deadline| deadline.min(room_limit));
        let events_asked = events.len();
        let (pending, stopped) = self.enqueue(events, room_limit).await;
        let passed = pending.len();
        if pending.is_empty() {
            return match stopped {
                Some(Stopped::NoRoom) if deadline == Some(room_limit) => {
                    Err(AcceptError::DeadlineExceeded)
                }
                Some(Stopped::NoRoom) => Err(AcceptError::Full { retry_after: None }),
                Some(Stopped::Failed(PublishError::Fatal(reason))) => Err(unusable(reason)),
                Some(Stopped::Failed(error)) => Err(refusal(error)),
                // A request has at least one event.
                None => Ok(Accepted::New),
            };
        }
        let in_flight = InFlight::begin(&self.sent, passed);
        let settling = Settling::new(settle(in_flight, pending));
        let mut settled = match deadline {
            Some(deadline) => match timeout_at(deadline, settling).await {
                Ok(settled) => settled,
                Err(_) => return Err(unknown("the deadline passed before the acknowledgement")),
            },
            None => settling.await,
        };
        if let Some(Stopped::Failed(error)) = stopped {
            settled.fail(passed, error);
        }
        settled.answer(events_asked)
    }

    /// Passes events to the publisher, in order, until one fails.
    async fn enqueue(
        &self,
        events: Vec<AcceptedEvent>,
        room_limit: Instant,
    ) -> (Vec<(EventPlace, PendingReceipt)>, Option<Stopped>) {
        let mut pending = Vec::with_capacity(events.len());
        for event in events {
            let (place, record) = placed(event);
            let enqueued = self.publisher.enqueue_record(record);
            match timeout_at(room_limit, enqueued).await {
                Ok(Ok(receipt)) => pending.push((place, receipt)),
                Ok(Err(error)) => {
                    self.sent.note_failure(&error);
                    return (pending, Some(Stopped::Failed(error)));
                }
                Err(_) => return (pending, Some(Stopped::NoRoom)),
            }
        }
        (pending, None)
    }
}

impl AcceptStore for BrokerStore {
    fn accept(&self, request: AcceptRequest) -> BoxFuture<'_, Result<Accepted, AcceptError>> {
        Box::pin(self.publish(request))
    }

    fn find<'a>(
        &'a self,
        id: &'a str,
        source: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<EventPlace>, AcceptError>> {
        Box::pin(async move { Ok(self.sent.places().find(id, source)) })
    }

    fn backlog(&self) -> Backlog {
        let oldest = self
            .sent
            .begun()
            .first_key_value()
            .map(|(_, begun)| begun.elapsed());
        Backlog {
            events: self.sent.unacknowledged.load(Ordering::Relaxed),
            oldest_age: oldest,
            drained: self.sent.acknowledged.load(Ordering::Relaxed),
        }
    }

    fn keeps_identities(&self) -> bool {
        false
    }

    fn failed(&self) -> Option<String> {
        self.sent.failed.get().cloned()
    }

    fn name(&self) -> &'static str {
        "brokers"
    }
}

/// The end of a request's events. It is awaited in place, which spares a task. If the caller gives
/// up, it goes on in a task, so that the places are kept.
struct Settling {
    /// None once it is over.
    settle: Option<BoxFuture<'static, Settled>>,
}

impl Settling {
    fn new(settle: impl Future<Output = Settled> + Send + 'static) -> Self {
        Self {
            settle: Some(Box::pin(settle)),
        }
    }
}

impl Future for Settling {
    type Output = Settled;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Settled> {
        // Taken, so that one that panics is not polled again.
        let mut settle = self.settle.take().expect("it is not polled after its end");
        let polled = settle.as_mut().poll(cx);
        if polled.is_pending() {
            self.settle = Some(settle);
        }
        polled
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        // Without a runtime, the process ends.
        if let Some(settle) = self.settle.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(settle);
        }
    }
}

/// Awaits the receipts, and keeps the places of the acknowledged events.
async fn settle(in_flight: InFlight, pending: Vec<(EventPlace, PendingReceipt)>) -> Settled {
    let mut settled = Settled::default();
    let mut in_flight = in_flight;
    for (index, (mut place, receipt)) in pending.into_iter().enumerate() {
        match receipt.await {
            Ok(receipt) => {
                // A repeated batch is acknowledged without its offset.
                place.position =
                    (receipt.offset >= 0).then_some((receipt.partition, receipt.offset));
                in_flight.acknowledge(place);
                settled.acknowledge();
            }
            Err(error) => {
                in_flight.sent.note_failure(&error);
                settled.fail(index, error);
            }
        }
    }
    settled
}

/// The place of an event, as far as it is known before the acknowledgement, and its record.
fn placed(event: AcceptedEvent) -> (EventPlace, OutgoingRecord) {
    let AcceptedEvent {
        source,
        id,
        ty,
        record,
        ..
    } = event;
    let mut place = EventPlace::new(source, id, ty, record.topic.clone(), now_ms());
    // A copy: the key may be a part of a larger buffer, which the place would keep.
    place.key = record.key.as_deref().map(Bytes::copy_from_slice);
    (place, record)
}

/// What was passed to the publisher.
#[derive(Debug, Default)]
struct Sent {
    places: Mutex<Places>,
    /// When the requests in flight began, in the order of their numbers.
    begun: Mutex<BTreeMap<u64, Instant>>,
    requests: AtomicU64,
    unacknowledged: AtomicU64,
    acknowledged: AtomicU64,
    /// Why the producer is unusable.
    failed: OnceLock<String>,
}

impl Sent {
    /// Remembers the first permanent failure of the producer.
    fn note_failure(&self, error: &PublishError) {
        if let PublishError::Fatal(reason) = error {
            self.failed.get_or_init(|| reason.clone());
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events of a request that are not settled. Dropped, they no longer count.
#[derive(Debug)]
struct InFlight {
    sent: Arc<Sent>,
    request: u64,
    events: u64,
}

impl InFlight {
    fn begin(sent: &Arc<Sent>, events: usize) -> Self {
        let request = sent.requests.fetch_add(1, Ordering::Relaxed);
        sent.begun().insert(request, Instant::now());
        sent.unacknowledged
            .fetch_add(events as u64, Ordering::Relaxed);
        Self {
            sent: Arc::clone(sent),
            request,
            events: events as u64,
        }
    }

    /// Records that the brokers have one of the events.
    fn acknowledge(&mut self, place: EventPlace) {
        self.sent.places().add(place);
        self.sent.acknowledged.fetch_add(1, Ordering::Relaxed);
        self.sent.unacknowledged.fetch_sub(1, Ordering::Relaxed);
        self.events -= 1;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.sent.begun().remove(&self.request);
        self.sent
            .unacknowledged
            .fetch_sub(self.events, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::{self, event, request};
    use super::*;
    use evenkeel::kafka::KafkaConfig;
    use evenkeel::publisher::PublisherSettings;
    use evenkeel::testing::{KafkaKind, TestKafka, read_topic};
    use futures_util::FutureExt;

    struct OnBrokers {
        store: Arc<BrokerStore>,
        kafka: TestKafka,
    }

    impl conformance::Subject for OnBrokers {
        fn store(&self) -> Arc<dyn AcceptStore> {
            self.store.clone()
        }

        fn records(&self) -> BoxFuture<'_, Vec<(String, String)>> {
            Box::pin(async move {
                let config = self.kafka.config();
                let records = read_topic(&config, conformance::TOPIC, conformance::WITHIN).await;
                let text = |bytes: Option<Vec<u8>>| {
                    String::from_utf8(bytes.unwrap_or_default()).expect("text")
                };
                let pairs = records.into_iter();
                pairs
                    .map(|record| (text(record.key), text(record.value)))
                    .collect()
            })
        }
    }

    fn publisher(kafka: &KafkaConfig, settings: PublisherSettings) -> Publisher {
        Publisher::new(kafka, settings).expect("the settings of the publisher are valid")
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_brokers_keep_the_contract() {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster starts");
        kafka
            .create_topic(conformance::TOPIC, 1)
            .await
            .expect("the topic is created");
        let publisher = publisher(&kafka.config(), PublisherSettings::new("/gateway"));
        let store = Arc::new(BrokerStore::new(publisher));
        conformance::check(&OnBrokers { store, kafka }).await;
    }

    /// Nothing listens there.
    fn without_brokers(records_max: usize) -> BrokerStore {
        let settings = PublisherSettings::new("/gateway").with_buffer_records_max(records_max);
        BrokerStore::new(publisher(&KafkaConfig::new("127.0.0.1:1"), settings))
    }

    #[tokio::test]
    async fn a_full_buffer_refuses_and_a_deadline_ends_the_wait() {
        let store = without_brokers(1);
        let within = |id: &str, millis| {
            let mut request = request(vec![event("k", id, "1")]);
            request.deadline = Some(Instant::now() + Duration::from_millis(millis));
            request
        };
        // It has the only place in the buffer, and is never acknowledged.
        let first = store.accept(within("1", 200)).await;
        assert!(
            matches!(first, Err(AcceptError::Unknown { .. })),
            "{first:?}"
        );
        let backlog = store.backlog();
        assert_eq!((backlog.events, backlog.drained), (1, 0));
        assert!(
            backlog.oldest_age >= Some(Duration::from_millis(100)),
            "{backlog:?}"
        );
        for (millis, is_full) in [(100, false), (60_000, true)] {
            let refused = store.accept(within("2", millis)).await;
            let expected = match refused {
                Err(AcceptError::Full { .. }) => is_full,
                Err(AcceptError::DeadlineExceeded) => !is_full,
                _ => false,
            };
            assert!(expected, "{refused:?}");
        }
        assert_eq!(store.backlog().events, 1, "what is refused does not count");
    }

    /// A store on a mock cluster that has the topic of [`event`].
    async fn store_on_mock() -> (TestKafka, BrokerStore) {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster starts");
        let topic = event("k", "1", "1").record.topic;
        kafka.create_topic(&topic, 1).await.expect("a topic");
        let publisher = publisher(&kafka.config(), PublisherSettings::new("/gateway"));
        (kafka, BrokerStore::new(publisher))
    }

    #[tokio::test]
    async fn a_place_is_kept_if_the_caller_gives_up() {
        let (_kafka, store) = store_on_mock().await;
        let answer = store.accept(request(vec![event("k", "1", "1")]));
        assert!(answer.now_or_never().is_none(), "no answer at once");
        let found = async {
            loop {
                let found = store.find("1", None).await.expect("it always answers");
                if let [place] = found.as_slice() {
                    return place.position;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let position = tokio::time::timeout(conformance::WITHIN, found).await;
        assert!(position.expect("it is acknowledged").is_some());
        assert_eq!(store.backlog().events, 0);
    }

    #[tokio::test]
    async fn a_record_that_can_never_be_published_is_rejected() {
        let (_kafka, store) = store_on_mock().await;
        let large = AcceptedEvent {
            record: OutgoingRecord {
                value: Some(vec![b'x'; 17 << 20].into()),
                ..event("k", "1", "1").record
            },
            ..event("k", "1", "1")
        };
        let rejected = store.accept(request(vec![large])).await;
        assert!(
            matches!(rejected, Err(AcceptError::Rejected(_))),
            "{rejected:?}"
        );
        assert_eq!(store.backlog(), Backlog::default());
    }

    #[tokio::test]
    async fn a_rejected_event_is_named_and_the_others_are_published() {
        let (_kafka, store) = store_on_mock().await;
        let large = event("k", "2", &"x".repeat(17 << 20));
        let batch = vec![event("k", "1", "1"), large];
        let rejected = store.accept(request(batch)).await;
        let Err(AcceptError::Rejected(reason)) = rejected else {
            panic!("rejected: {rejected:?}");
        };
        assert!(reason.starts_with("event 1 (from 0)"), "{reason}");
        assert_eq!(store.backlog().drained, 1);
    }

    #[tokio::test]
    async fn a_producer_that_failed_permanently_accepts_nothing() {
        let store = without_brokers(1);
        assert_eq!(store.failed(), None);
        store
            .sent
            .note_failure(&PublishError::Fatal("fenced".to_owned()));
        let refused = store.accept(request(vec![event("k", "1", "1")])).await;
        assert!(
            matches!(refused, Err(AcceptError::Unavailable { .. })),
            "{refused:?}"
        );
        assert_eq!(store.failed().as_deref(), Some("fenced"));
    }
}
