//! Relays that stop beside others: a SQLite file is the store, and the brokers are librdkafka's
//! mock cluster.

use crate::event::{Headers, OutgoingRecord};
use crate::outbox::conformance::Writer;
use crate::outbox::row;
use crate::outbox::store::Store;
use crate::outbox::{OutboxError, Relay, RelayReport, SqliteOutbox};
use crate::publisher::{Publisher, PublisherSettings};
use crate::testing::{KafkaKind, TestKafka, eventually, read_topic};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const TOPIC: &str = "t";

/// Longer than any step takes on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A lease that does not expire during a test.
const LONG_LEASE: Duration = Duration::from_secs(600);

/// The key whose slot belongs to a relay that publishes nothing.
const KEPT: &str = "kept";

/// Bounds what a test writes ahead of the relays.
const PENDING_MAX: u64 = 500;

/// An outbox in a file, and brokers.
struct Shop {
    directory: TempDir,
    kafka: TestKafka,
}

impl Shop {
    async fn open() -> Self {
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
    async fn outbox(&self) -> SqliteOutbox {
        let path = self.directory.path().join("outbox.db");
        SqliteOutbox::open(&path).await.expect("the outbox opens")
    }

    /// Starts a relay that drains after `stop`, without a limit.
    async fn relay(&self, stop: &CancellationToken) -> Running {
        let settings = PublisherSettings::new("/test");
        let publisher = Publisher::new(&self.kafka.config(), settings);
        let publisher = publisher.expect("the settings of the publisher are valid");
        let relay = Relay::new(self.outbox().await, publisher);
        tokio::spawn(Box::pin(
            relay.run_then_drain(stop.clone(), CancellationToken::new()),
        ))
    }

    /// The values on the log, sorted, with repetitions.
    async fn published(&self) -> Vec<usize> {
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

type Running = JoinHandle<Result<RelayReport, OutboxError>>;

/// The report of a relay that ends by itself.
async fn ended(relay: Running) -> RelayReport {
    let ended = timeout(WITHIN, relay).await.expect("it ends");
    ended.expect("no panic").expect("it ends well")
}

/// Waits until so many relays are registered.
async fn registered(outbox: &SqliteOutbox, relays: usize) {
    eventually("the relays are registered", WITHIN, || async {
        let status = outbox.status().await.expect("a status");
        (status.relays.len() == relays).then_some(())
    })
    .await;
}

fn record(key: &str, value: usize) -> OutgoingRecord {
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
    for relay in relays {
        let report = ended(relay).await;
        assert_eq!(report.unacknowledged, 0, "{report:?}");
    }
    assert_eq!(shop.published().await, (0..400).collect::<Vec<_>>());
    registered(&outbox, 0).await;
    let status = outbox.status().await.expect("a status");
    assert_eq!((status.pending, status.slots_free), (0, 64));
}
