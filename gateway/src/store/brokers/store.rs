//! The store that is the brokers: an event is accepted when all in-sync replicas have it.
//!
//! Owns the path of a request to the publisher. Keeps no identities: consumers recognise a repeated
//! event by its id.

use super::super::error::AcceptError;
use super::super::maintenance::now_ms;
use super::super::port::{
    AcceptRequest, AcceptStore, Accepted, AcceptedEvent, Backlog, EventPlace,
};
use super::in_flight::{Passed, Sent};
use super::settled::{Stopped, refusal, unknown, unusable};
use bytes::Bytes;
use evenkeel::event::OutgoingRecord;
use evenkeel::inbox::BoxFuture;
use evenkeel::publisher::{PublishError, Publisher};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
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
/// the last 100,000 events, about 250 bytes each; of an id, those of the last 100 sources are
/// found. Other gateways do not know these places.
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
    /// [`ROOM_LIMIT`], but for tests.
    room_limit: Duration,
}

impl BrokerStore {
    /// Creates a store on this publisher, which other parts may use too.
    pub fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            sent: Arc::default(),
            room_limit: ROOM_LIMIT,
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
        let room_until = now + self.room_limit;
        let room_until = deadline.map_or(room_until, |deadline| deadline.min(room_until));
        let events_asked = events.len();
        let mut passed = Passed::new(&self.sent, events_asked);
        let stopped = self.enqueue(events, room_until, &mut passed).await;
        let events_passed = passed.events();
        if events_passed == 0 {
            return match stopped {
                Some(Stopped::NoRoom) if deadline == Some(room_until) => {
                    Err(AcceptError::DeadlineExceeded)
                }
                Some(Stopped::NoRoom) => Err(AcceptError::Full { retry_after: None }),
                Some(Stopped::Failed(PublishError::Fatal(reason))) => Err(unusable(reason)),
                Some(Stopped::Failed(error)) => Err(refusal(error)),
                // A request has at least one event.
                None => Ok(Accepted::New),
            };
        }
        let mut settled = match deadline {
            Some(deadline) => match timeout_at(deadline, passed.settle()).await {
                Ok(settled) => settled,
                Err(_) => return Err(unknown("the deadline passed before the acknowledgement")),
            },
            None => passed.settle().await,
        };
        if let Some(Stopped::Failed(error)) = stopped {
            settled.fail(events_passed, error);
        }
        settled.answer(events_asked)
    }

    /// Passes events to the publisher, in order, until one fails. Those that wait for room do not
    /// keep the receipts of the ones before from being read.
    async fn enqueue(
        &self,
        events: Vec<AcceptedEvent>,
        room_until: Instant,
        passed: &mut Passed,
    ) -> Option<Stopped> {
        for event in events {
            let (place, record) = placed(event);
            let enqueued = pin!(self.publisher.enqueue_record(record));
            let enqueued = passed.settle_during(timeout_at(room_until, enqueued));
            match enqueued.await {
                Ok(Ok(receipt)) => passed.add(place, receipt),
                Ok(Err(error)) => {
                    self.sent.note_failure(&error);
                    return Some(Stopped::Failed(error));
                }
                Err(_) => return Some(Stopped::NoRoom),
            }
        }
        None
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
        self.sent.backlog()
    }

    fn keeps_identities(&self) -> bool {
        false
    }

    fn failed(&self) -> Option<String> {
        self.sent.failed()
    }

    fn name(&self) -> &'static str {
        "brokers"
    }
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
    // The receipt has the topic.
    let mut place = EventPlace::new(source, id, ty, String::new(), now_ms());
    // A copy: the key may be a part of a larger buffer, which the place would keep.
    place.key = record.key.as_deref().map(Bytes::copy_from_slice);
    (place, record)
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
        let kafka = kafka_with_topic().await;
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

    /// A mock cluster that has the topic of [`event`].
    async fn kafka_with_topic() -> TestKafka {
        let kafka = TestKafka::start(KafkaKind::Mock)
            .await
            .expect("the mock cluster starts");
        let topic = conformance::TOPIC;
        kafka.create_topic(topic, 1).await.expect("a topic");
        kafka
    }

    /// A store on a mock cluster that has the topic of [`event`], with room for this many records.
    async fn store_with_room(records_max: usize) -> (TestKafka, BrokerStore) {
        let kafka = kafka_with_topic().await;
        let settings = PublisherSettings::new("/gateway").with_buffer_records_max(records_max);
        let publisher = publisher(&kafka.config(), settings);
        (kafka, BrokerStore::new(publisher))
    }

    /// A store on a mock cluster that has the topic of [`event`].
    async fn store_on_mock() -> (TestKafka, BrokerStore) {
        store_with_room(100).await
    }

    /// Where the event is, as soon as it is acknowledged.
    async fn acknowledged_position(store: &BrokerStore, id: &str) -> Option<(i32, i64)> {
        let found = async {
            loop {
                let found = store.find(id, None).await.expect("it always answers");
                if let [place] = found.as_slice() {
                    return place.position;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let position = tokio::time::timeout(conformance::WITHIN, found).await;
        position.expect("it is acknowledged")
    }

    #[tokio::test]
    async fn a_place_is_kept_if_the_caller_gives_up() {
        let (_kafka, store) = store_on_mock().await;
        let answer = store.accept(request(vec![event("k", "1", "1")]));
        assert!(answer.now_or_never().is_none(), "no answer at once");
        assert!(acknowledged_position(&store, "1").await.is_some());
        assert_eq!(store.backlog().events, 0);
    }

    #[tokio::test]
    async fn a_place_is_kept_if_the_caller_leaves_between_two_events() {
        let (_kafka, store) = store_with_room(1).await;
        let batch = vec![event("k", "1", "1"), event("k", "2", "1")];
        let answer = store.accept(request(batch));
        assert!(answer.now_or_never().is_none(), "the second waits for room");
        let backlog = store.backlog();
        assert_eq!(backlog.events, 1, "the first is sent, and counts");
        assert!(backlog.oldest_age.is_some(), "{backlog:?}");
        assert!(acknowledged_position(&store, "1").await.is_some());
        let expected = Backlog {
            drained: 1,
            ..Backlog::default()
        };
        assert_eq!(store.backlog(), expected);
        let second = store.find("2", None).await.expect("it always answers");
        assert!(second.is_empty(), "it was not sent: {second:?}");
    }

    #[tokio::test]
    async fn receipts_are_read_while_an_event_waits_for_room() {
        let kafka = kafka_with_topic().await;
        let mut config = kafka.config();
        // Two records are sent together at once, and one alone stays in the buffer.
        for property in ["batch.num.messages=2", "linger.ms=60000"] {
            config.set(property).expect("a property of producers");
        }
        let settings = PublisherSettings::new("/gateway")
            .with_buffer_records_max(2)
            .with_buffer_bytes_max(20_000);
        let store = BrokerStore {
            room_limit: 2 * conformance::WITHIN,
            ..BrokerStore::new(publisher(&config, settings))
        };
        let mut batch: Vec<_> = ["1", "2", "3"]
            .into_iter()
            .map(|id| event("k", id, "1"))
            .collect();
        // More than what the third leaves.
        batch.push(event("k", "4", &"x".repeat(15_000)));
        let settled = async {
            while (store.backlog().events, store.backlog().drained) != (1, 2) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            answer = store.accept(request(batch)) => panic!("there is no room: {answer:?}"),
            settled = tokio::time::timeout(conformance::WITHIN, settled) => {
                settled.expect("the receipts of the first two are read");
            }
        }
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
