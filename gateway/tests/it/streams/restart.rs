//! A stream over two gateways and fifty cuts, on a real Kafka whose broker is killed and started
//! again, while the topic grows and the members of a group come and go.
//!
//! The records of the topic itself tell what the client must have seen.

use super::client::{Connection, TYPE, WITHIN};
use super::{Instance, counted, serve, small, target};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::Admin;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{TestKafka, eventually, read_topic, required, unique};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const CUTS: usize = 50;
/// Keys of a partition.
const KEYS: usize = 2;
const PARTITIONS: usize = 4;
const PARTITIONS_GROWN: usize = 6;
/// The most events of each key.
const EACH_MAX: usize = 1_000;

/// The numbers by key, in the order in which they were seen.
type Seen = BTreeMap<String, Vec<usize>>;

/// Publishes the next number of each key, until it is stopped. A key stays in its partition.
async fn publish(
    kafka: KafkaConfig,
    topic: String,
    partitions: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/test")).expect("a publisher");
    for number in 0..EACH_MAX {
        for key in 0..partitions.load(Ordering::Relaxed) * KEYS {
            let mut record = counted(&topic, TYPE, &format!("k-{key}"), number, 0);
            record.partition = i32::try_from(key / KEYS).ok();
            // The client waits for a broker that is away; what it gives up may be on the log.
            while publisher.publish_record(record.clone()).await.is_err() {}
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

/// What happens around the stream.
struct World {
    kafka: KafkaConfig,
    topic: String,
    directory: PathBuf,
    broker: Option<TestKafka>,
    partitions: Arc<AtomicUsize>,
    restarting: Option<JoinHandle<TestKafka>>,
    members: Vec<CancellationToken>,
}

impl World {
    /// A topic on this broker, whose data is in the folder.
    async fn on(broker: TestKafka, directory: PathBuf) -> Self {
        let topic = unique("restart");
        let partitions = i32::try_from(PARTITIONS).expect("a small number");
        let created = broker.create_topic(&topic, partitions).await;
        created.expect("the topic is new");
        let kafka = broker.config();
        let kafka = kafka.with_property("reconnect.backoff.max.ms", "500");
        Self {
            kafka: kafka.expect("a valid property"),
            topic,
            directory,
            broker: Some(broker),
            partitions: Arc::new(AtomicUsize::new(PARTITIONS)),
            restarting: None,
            members: Vec::new(),
        }
    }

    /// The streams of another gateway.
    async fn gateway(&self) -> Instance {
        let settings = small()
            .with_heartbeat(Duration::from_millis(200))
            .with_broker_timeout(Duration::from_secs(5));
        serve(self.kafka.clone(), &self.topic, settings).await
    }

    /// Publishes until it is stopped.
    fn publish(&self, stop: &CancellationToken) -> JoinHandle<()> {
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let partitions = Arc::clone(&self.partitions);
        tokio::spawn(Box::pin(publish(kafka, topic, partitions, stop.clone())))
    }

    /// What happens at this cut. The broker comes back while the stream goes on.
    async fn disturb(&mut self, cut: usize) {
        match cut {
            5 | 10 => self.join_group(),
            15 => {
                let admin = Box::pin(Admin::connect(&self.kafka, WITHIN)).await;
                let admin = admin.expect("the broker answers");
                let grown = admin.grow_topic(&self.topic, PARTITIONS_GROWN).await;
                grown.expect("the topic grows");
                self.partitions.store(PARTITIONS_GROWN, Ordering::Relaxed);
            }
            25 => {
                drop(self.broker.take());
                let directory = self.directory.clone();
                self.restarting = Some(tokio::spawn(Box::pin(async move {
                    let broker = TestKafka::start_in(&directory).await;
                    broker.expect("it was there before")
                })));
            }
            40 => {
                self.await_broker().await;
                self.members[0].cancel();
            }
            45 => self.join_group(),
            _ => {}
        }
    }

    /// Another member of the group: the topic's partitions move.
    fn join_group(&mut self) {
        let settings = ConsumerSettings::new(format!("of-{}", self.topic), [&self.topic]);
        let router = Router::new().fallback(async |_: Record| {});
        let member = Consumer::new(self.kafka.clone(), settings, router);
        let member = member.expect("the settings are valid");
        let stop = CancellationToken::new();
        tokio::spawn(Box::pin(member.run(stop.clone())));
        self.members.push(stop);
    }

    async fn await_broker(&mut self) {
        if let Some(restarting) = self.restarting.take() {
            self.broker = Some(restarting.await.expect("the broker starts"));
        }
    }
}

/// A client that keeps the last cursor only.
struct Client {
    gateways: [Instance; 2],
    last_id: Option<String>,
    seen: Seen,
    total: usize,
}

impl Client {
    /// Connects to the other gateway; again, while no broker answers.
    async fn connect(&self, turn: usize) -> Connection {
        let address = self.gateways[turn % 2].address;
        let last_id = self.last_id.as_deref();
        let headers: Vec<_> = last_id
            .map(|id| ("Last-Event-ID", id))
            .into_iter()
            .collect();
        let open = || async {
            let client = Connection::get(address, &target("&from=earliest"), &headers).await;
            assert!([200, 503].contains(&client.status), "{}", client.head);
            (client.status == 200).then_some(client)
        };
        eventually("the stream opens", WITHIN, open).await
    }

    /// Takes a frame. Returns whether it was an event; None if the stream is over.
    async fn take(&mut self, connection: &mut Connection) -> Option<bool> {
        let frame = connection.next().await?;
        let counted = frame.counted();
        let is_event = counted.is_some();
        if let Some((key, number)) = counted {
            self.seen.entry(key).or_default().push(number);
            self.total += 1;
        }
        assert!(
            ["heartbeat", "failed", TYPE].contains(&frame.name.as_str()),
            "{frame:?}"
        );
        let is_over = frame.name == "failed";
        self.last_id = Some(frame.id);
        (!is_over).then_some(is_event)
    }

    /// Reads until these many events were seen, and then two heartbeats without an event.
    async fn read_rest(&mut self, count: usize) {
        let mut turn = 0;
        let mut silent = 0;
        let mut connection = self.connect(turn).await;
        while silent < 2 {
            match self.take(&mut connection).await {
                Some(true) => silent = 0,
                Some(false) => silent += usize::from(self.total >= count),
                None => {
                    turn += 1;
                    connection = self.connect(turn).await;
                }
            }
        }
    }
}

/// What the topic has, by key. The records of a key are in one partition.
async fn on_the_log(kafka: &KafkaConfig, topic: &str) -> Seen {
    let mut seen = Seen::new();
    for record in read_topic(kafka, topic, WITHIN).await {
        let event: serde_json::Value =
            serde_json::from_slice(&record.value.unwrap_or_default()).expect("the data is JSON");
        let number = event["number"].as_u64().expect("a number");
        let key = event["key"].as_str().expect("a key").to_owned();
        let number = usize::try_from(number).expect("a small number");
        seen.entry(key).or_default().push(number);
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cuts_and_a_broker_restart_lose_and_repeat_nothing() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let Some(broker) = required(TestKafka::start_in(directory.path()).await) else {
        return;
    };
    let seed = rand::random::<u64>();
    // It is shown with the failure.
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::on(broker, directory.path().to_owned()).await;
    let gateways = [world.gateway().await, world.gateway().await];
    let stop = CancellationToken::new();
    let publishing = world.publish(&stop);
    let mut client = Client {
        gateways,
        last_id: None,
        seen: Seen::new(),
        total: 0,
    };
    for cut in 0..CUTS {
        let mut connection = client.connect(cut).await;
        // The connection is open while it happens.
        world.disturb(cut).await;
        for _ in 0..random.random_range(1..=24) {
            if client.take(&mut connection).await.is_none() {
                break;
            }
        }
    }
    stop.cancel();
    publishing.await.expect("everything was published");
    world.await_broker().await;
    let expected = on_the_log(&world.kafka, &world.topic).await;
    assert_eq!(expected.len(), PARTITIONS_GROWN * KEYS, "seed {seed}");
    client
        .read_rest(expected.values().map(Vec::len).sum())
        .await;
    assert_eq!(client.seen, expected, "seed {seed}");
    for (key, numbers) in &client.seen {
        assert!(numbers.is_sorted(), "seed {seed}, {key}: {numbers:?}");
    }
    world.members.iter().for_each(CancellationToken::cancel);
}
