//! Relays that stop beside others: a SQLite file is the store, and the brokers are librdkafka's
//! mock cluster.

use crate::event::{Headers, OutgoingRecord};
use crate::kafka::KafkaConfig;
use crate::outbox::conformance::Writer;
use crate::outbox::row;
use crate::outbox::store::{SlotLease, Store};
use crate::outbox::{OutboxError, Relay, RelayReport, RelaySettings, SqliteOutbox};
use crate::publisher::{Publisher, PublisherSettings};
use crate::testing::{KafkaKind, TestKafka, eventually, read_topic};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "t";

/// Longer than any step takes on a busy machine.
pub(super) const WITHIN: Duration = Duration::from_secs(60);

/// A lease that does not expire during a test.
pub(super) const LONG_LEASE: Duration = Duration::from_secs(600);

/// The key whose slot belongs to a relay that publishes nothing.
const KEPT: &str = "kept";

/// Bounds what a test writes ahead of the relays.
const PENDING_MAX: u64 = 500;

/// An outbox in a file, and brokers.
pub(super) struct Shop {
    directory: TempDir,
    kafka: TestKafka,
}

impl Shop {
    pub(super) async fn open() -> Self {
        let kafka = TestKafka::start(KafkaKind::Mock).await;
        let kafka = kafka.expect("the mock cluster starts");
        let topic = kafka.create_topic(TOPIC, 4).await;
        topic.expect("the topic is created");
        Self {
            directory: tempfile::tempdir().expect("a temporary folder is created"),
            kafka,
        }
    }

    /// The outbox as another process opens it, with connections of its own.
    pub(super) async fn outbox(&self) -> SqliteOutbox {
        let path = self.directory.path().join("outbox.db");
        SqliteOutbox::open(&path).await.expect("the outbox opens")
    }

    /// A publisher to the brokers.
    pub(super) fn publisher(&self) -> Publisher {
        publisher_to(&self.kafka.config())
    }

    /// Starts a relay that drains after `stop`, without a limit.
    async fn relay(&self, stop: &CancellationToken) -> Running {
        let relay = Relay::new(self.outbox().await, self.publisher());
        tokio::spawn(Box::pin(
            relay.run_then_drain(stop.clone(), CancellationToken::new()),
        ))
    }

    /// Starts a relay that has all slots and has taken a row on this key. It waits for the
    /// acknowledgement without a limit: nobody listens at the address of its brokers. Returns it
    /// with its name.
    async fn relay_without_brokers(
        &self,
        key: &str,
        settings: RelaySettings,
        [stop, drain_stop]: [&CancellationToken; 2],
    ) -> (Running, String) {
        let outbox = self.outbox().await;
        let publisher = publisher_to(&KafkaConfig::new("127.0.0.1:1"));
        let relay = Relay::new(outbox.clone(), publisher.clone())
            .with_settings(settings.with_drain_timeout(LONG_LEASE));
        let running = relay.run_then_drain(stop.clone(), drain_stop.clone());
        let running = tokio::spawn(Box::pin(running));
        registered(&outbox, 1).await;
        let status = outbox.status().await.expect("a status");
        outbox.write(vec![record(key, 0)], true).await;
        eventually("the row is being sent", WITHIN, || async {
            publisher.flush(Duration::ZERO).await.err()
        })
        .await;
        (running, status.relays[0].relay.clone())
    }

    /// The values on the log, sorted, with repetitions.
    pub(super) async fn published(&self) -> Vec<usize> {
        let records = read_topic(&self.kafka.config(), TOPIC, WITHIN).await;
        let number = |value: Vec<u8>| -> usize {
            let text = String::from_utf8(value).expect("text");
            text.parse().expect("a number")
        };
        let values = records.into_iter().filter_map(|record| record.value);
        let mut values: Vec<usize> = values.map(number).collect();
        values.sort_unstable();
        values
    }
}

pub(super) fn publisher_to(kafka: &KafkaConfig) -> Publisher {
    let publisher = Publisher::new(kafka, PublisherSettings::new("/test"));
    publisher.expect("the settings of the publisher are valid")
}

pub(super) type Running = JoinHandle<Result<RelayReport, OutboxError>>;

/// The report of a relay that ends by itself.
pub(super) async fn ended(relay: Running) -> RelayReport {
    let ended = timeout(WITHIN, relay).await.expect("it ends");
    ended.expect("no panic").expect("it ends well")
}

/// Waits until so many relays are registered.
pub(super) async fn registered(outbox: &SqliteOutbox, relays: usize) {
    eventually("the relays are registered", WITHIN, || async {
        let status = outbox.status().await.expect("a status");
        (status.relays.len() == relays).then_some(())
    })
    .await;
}

pub(super) fn record(key: &str, value: usize) -> OutgoingRecord {
    OutgoingRecord {
        topic: TOPIC.to_owned(),
        partition: None,
        key: Some(key.to_owned().into()),
        value: Some(value.to_string().into()),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

/// Writes records on some keys, as fast as relays publish them, until `stop`. Returns the next
/// value.
async fn keep_writing(outbox: &SqliteOutbox, from: usize, stop: &CancellationToken) -> usize {
    let mut next = from;
    while !stop.is_cancelled() {
        let backlog = outbox.backlog().await.expect("an answer");
        if backlog.pending < PENDING_MAX {
            let values = next..next + 20;
            let records = values.map(|value| record(&format!("k{}", value % 20), value));
            outbox.write(records.collect(), true).await;
            next += 20;
        } else {
            sleep(Duration::from_millis(5)).await;
        }
    }
    next
}

/// The outbox is never empty: a row waits in a slot of a relay that publishes nothing.
#[tokio::test]
async fn a_draining_relay_leaves_the_rest_to_another() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let slot = row::slot(row::key_hash(TOPIC, KEPT.as_bytes()));
    let idle = outbox.register("idle", LONG_LEASE).await;
    idle.expect("registered");
    let leased = outbox.lease("idle", &[slot], LONG_LEASE).await;
    assert_eq!(leased.expect("answered"), [slot]);
    outbox.write(vec![record(KEPT, 0)], true).await;

    let [stop, stop_other, stop_writing] = [(); 3].map(|()| CancellationToken::new());
    let relay = shop.relay(&stop).await;
    let other = shop.relay(&stop_other).await;
    registered(&outbox, 3).await;
    let writing = keep_writing(&outbox, 1, &stop_writing);
    let stopping = async {
        eventually("rows were published", WITHIN, || async {
            (shop.published().await.len() > 100).then_some(())
        })
        .await;
        stop.cancel();
        let report = ended(relay).await;
        stop_writing.cancel();
        report
    };
    let (written, report) = tokio::join!(writing, stopping);
    assert!(report.handed_over, "{report:?}");
    assert_eq!(report.unacknowledged, 0, "{report:?}");
    registered(&outbox, 2).await;

    outbox.leave("idle").await.expect("left");
    stop_other.cancel();
    ended(other).await;
    assert_eq!(shop.published().await, (0..written).collect::<Vec<_>>());
}

#[tokio::test]
async fn of_two_relays_that_stop_together_one_publishes_the_rest() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let stop = CancellationToken::new();
    let relays = [shop.relay(&stop).await, shop.relay(&stop).await];
    registered(&outbox, 2).await;
    // One row of a key is on its way at a time, so most of them are left at the stop.
    let records = (0..400).map(|value| record(&format!("k{}", value % 4), value));
    outbox.write(records.collect(), true).await;
    stop.cancel();
    let mut handed_over = 0;
    for relay in relays {
        let report = ended(relay).await;
        assert_eq!(report.unacknowledged, 0, "{report:?}");
        handed_over += usize::from(report.handed_over);
    }
    assert_eq!(handed_over, 1, "the other one publishes the rest");
    assert_eq!(shop.published().await, (0..400).collect::<Vec<_>>());
    registered(&outbox, 0).await;
    let status = outbox.status().await.expect("a status");
    assert_eq!((status.pending, status.slots_free), (0, 64));
}

/// The first relay ends without a drain, and waits for an acknowledgement when the second stops.
#[tokio::test]
async fn no_relay_leaves_the_rest_to_one_that_takes_no_more_rows() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let [stop, stop_other] = [(); 2].map(|()| CancellationToken::new());
    // No lease expires, and no registration.
    let settings = RelaySettings::default().with_lease(LONG_LEASE);
    let stops = [&stop, &stop];
    let (waiting, name) = shop.relay_without_brokers(KEPT, settings, stops).await;
    stop.cancel();
    registered(&outbox, 0).await;
    assert!(!waiting.is_finished(), "it waits for the acknowledgement");

    let other = shop.relay(&stop_other).await;
    registered(&outbox, 1).await;
    outbox.write(vec![record("another", 1)], true).await;
    stop_other.cancel();
    waiting.abort();
    let aborted = waiting.await.expect_err("it has not ended");
    assert!(aborted.is_cancelled(), "{aborted}");
    outbox.leave(&name).await.expect("left");
    let report = ended(other).await;
    assert!(!report.handed_over, "{report:?}");
    assert_eq!(shop.published().await, [0, 1]);
}

/// The row is in a slot that the relay has to give up, and no relay takes it meanwhile.
#[tokio::test]
async fn a_relay_that_hands_over_keeps_its_slots_for_as_long_as_it_waits() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let share = row::SLOTS / 2;
    let is_surplus = |key: &String| row::slot(row::key_hash(TOPIC, key.as_bytes())) >= share;
    let key = (0..).map(|number| number.to_string()).find(is_surplus);
    let key = key.expect("one of many keys");
    let [stop, drain_stop] = [(); 2].map(|()| CancellationToken::new());
    let settings = RelaySettings::default();
    let lease = settings.lease;
    let stops = [&stop, &drain_stop];
    let (waiting, _) = shop.relay_without_brokers(&key, settings, stops).await;
    let slots = usize::try_from(share).expect("a count") + 1;
    eventually("only the slot of the row is surplus", WITHIN, || async {
        (leases_beside(&outbox).await.len() == slots).then_some(())
    })
    .await;
    stop.cancel();
    registered(&outbox, 1).await;
    assert_eq!(leases_longer_than(lease, &outbox).await, slots);
    waiting.abort();
}

#[tokio::test]
async fn a_relay_that_hands_nothing_over_keeps_its_slots_for_as_long_as_it_waits() {
    let shop = Shop::open().await;
    let outbox = shop.outbox().await;
    let stop = CancellationToken::new();
    let settings = RelaySettings::default();
    let lease = settings.lease;
    let stops = [&stop, &stop];
    let (waiting, _) = shop.relay_without_brokers(KEPT, settings, stops).await;
    stop.cancel();
    registered(&outbox, 0).await;
    assert_eq!(leases_longer_than(lease, &outbox).await, 64);
    waiting.abort();
}

/// The leases as another relay sees them.
async fn leases_beside(outbox: &SqliteOutbox) -> Vec<SlotLease> {
    let registered = outbox.register("other", LONG_LEASE).await;
    registered.expect("registered").leases
}

/// Waits until all leases last longer than this. Returns their number.
async fn leases_longer_than(lease: Duration, outbox: &SqliteOutbox) -> usize {
    eventually("the leases are lengthened", WITHIN, || async {
        let leases = leases_beside(outbox).await;
        let is_long = leases.iter().all(|kept| kept.expires_in > lease);
        is_long.then_some(leases.len())
    })
    .await
}
