//! What the tests of the guarantees share: a topic and a group of their own, members in this process, records to handle,
//! gates that hold handlers, and what the group has committed.
//!
//! Looks at offsets through rdkafka directly, so that a mistake of the library's own looks cannot hide one of its commits.

/// Handlers that add to balances on either store. A doubled effect would show.
pub(crate) mod balances;
/// A broker whose log files can be damaged.
pub(crate) mod damage;
/// kcat.
pub(crate) mod kcat;
/// A member of a group as a process of its own, which can be killed.
pub(crate) mod member_process;
/// Memory of a process, and records that fill it.
pub(crate) mod memory;
/// A proxy before a broker.
pub(crate) mod proxy;
/// A test of this binary as a process of its own.
pub(crate) mod second_process;
/// Topics created, grown and deleted.
mod topics;

use evenkeel::consumer::{Assignment, Consumer, ConsumerError, ConsumerSettings, RunReport};
use evenkeel::event::{Event, EventType, Headers, OutgoingRecord, Record};
use evenkeel::handler::{Delivery, Outcome};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{Publisher, PublisherSettings, Receipt};
use evenkeel::telemetry::Health;
use evenkeel::testing::{
    JavaProgram, Libraries, TestKafka, eventually, read_topic, real_kafka, required, unique,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a test waits for what has to happen: long, because test machines are slow and a pass does not wait for it.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// The shortest `max.poll.interval.ms` that brokers and client allow.
pub(crate) const POLL_INTERVAL_MAX: Duration = Duration::from_secs(6);

/// How long one look at a cluster may take.
const LOOK_WITHIN: Duration = Duration::from_secs(5);

/// How members are assigned their partitions where a test does not say: as by default, or by the brokers (KIP-848) where
/// `EVENKEEL_GROUP_PROTOCOL=consumer`.
pub(crate) fn assignment() -> Assignment {
    match std::env::var("EVENKEEL_GROUP_PROTOCOL").as_deref() {
        Ok("consumer") => Assignment::Broker,
        Ok("classic") | Err(_) => Assignment::default(),
        Ok(other) => panic!("EVENKEEL_GROUP_PROTOCOL is {other:?}, and not classic or consumer"),
    }
}

/// An event of a key, numbered so that order and completeness can be seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) number: u64,
}

impl EventType for Step {
    const TYPE: &'static str = "it.step.v1";
    const TOPIC: &'static str = "it.steps";

    fn key(&self) -> String {
        self.key.clone()
    }
}

/// Partition and offset of a record.
pub(crate) type Place = (i32, i64);

pub(crate) fn place(record: &Record) -> Place {
    (record.partition(), record.offset())
}

/// A topic and a group that no other test uses, on one cluster.
pub(crate) struct Case {
    pub(crate) kafka: KafkaConfig,
    pub(crate) topic: String,
    pub(crate) group: String,
    pub(crate) partitions: i32,
}

impl Case {
    /// On the shared Apache Kafka; none where there is none.
    pub(crate) async fn new(name: &str, partitions: i32) -> Option<Self> {
        let kafka = real_kafka().await?;
        Some(Self::on(kafka, name, partitions).await)
    }

    /// On this cluster.
    pub(crate) async fn on(cluster: &TestKafka, name: &str, partitions: i32) -> Self {
        let topic = unique(name);
        let created = cluster.create_topic(&topic, partitions).await;
        created.expect("the topic is created");
        Self::named(cluster.config(), topic, partitions)
    }

    /// With a topic that exists.
    pub(crate) fn named(mut kafka: KafkaConfig, topic: String, partitions: i32) -> Self {
        log_as_asked();
        // A rebalance is heard of soon.
        set(&mut kafka, "heartbeat.interval.ms=300");
        let group = unique("it");
        Self {
            kafka,
            topic,
            group,
            partitions,
        }
    }

    /// Defaults, but commits that come soon enough to be watched.
    pub(crate) fn settings(&self) -> ConsumerSettings {
        let mut settings = ConsumerSettings::new(&self.group, [&self.topic]);
        settings.commit_interval = Duration::from_millis(100);
        settings.assignment = assignment();
        settings
    }

    /// A publisher to this cluster.
    pub(crate) fn publisher(&self) -> Publisher {
        let settings = PublisherSettings::new("/it");
        Publisher::new(&self.kafka, settings).expect("the settings of the publisher are valid")
    }

    /// A record of this topic.
    pub(crate) fn record(
        &self,
        key: Option<&str>,
        value: impl Into<bytes::Bytes>,
    ) -> OutgoingRecord {
        OutgoingRecord {
            topic: self.topic.clone(),
            partition: None,
            key: key.map(|key| key.to_owned().into()),
            value: Some(value.into()),
            headers: Headers::new(),
            timestamp_ms: None,
        }
    }

    /// A step as an event of this topic.
    pub(crate) fn step(&self, publisher: &Publisher, key: &str, number: u64) -> OutgoingRecord {
        let step = Step {
            key: key.to_owned(),
            number,
        };
        let encoded = publisher.encode(&Event::new("/it", step), None);
        OutgoingRecord {
            topic: self.topic.clone(),
            ..encoded.expect("a step can be encoded")
        }
    }

    /// Publishes records, and returns when all are acknowledged.
    pub(crate) async fn publish(
        &self,
        records: impl IntoIterator<Item = OutgoingRecord>,
    ) -> Vec<Receipt> {
        publish_by(&self.publisher(), records).await
    }

    /// Publishes `count` records without a value's meaning, spread over `keys` keys.
    pub(crate) async fn publish_load(&self, count: usize, keys: usize) {
        let record = |n: usize| self.record(Some(&format!("k{}", n % keys)), n.to_string());
        self.publish((0..count).map(record)).await;
    }

    /// The ids of the group's members.
    pub(crate) async fn members(&self) -> Vec<String> {
        let group = self.admin().await.describe_group(&self.group).await;
        let group = group.expect("the brokers describe the group");
        let members = group.map(|group| group.members).unwrap_or_default();
        members.into_iter().map(|member| member.member_id).collect()
    }

    /// A look at this group's offsets.
    pub(crate) fn offsets(&self) -> Offsets {
        self.offsets_of(&self.topic, self.partitions)
    }

    /// A look at this group's offsets of another topic.
    pub(crate) fn offsets_of(&self, topic: &str, partitions: i32) -> Offsets {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.brokers)
            .set("group.id", &self.group)
            .create()
            .expect("a client that never joins");
        Offsets {
            client: Arc::new(client),
            topic: topic.to_owned(),
            partitions,
        }
    }

    /// Waits until the group has committed everything that the topic holds.
    pub(crate) async fn all_committed(&self) {
        let offsets = self.offsets();
        let ends = offsets.ends().await;
        eventually("everything is committed", WITHIN, || async {
            let committed = offsets.committed().await?;
            ends.iter()
                .all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) == *end)
                .then_some(())
        })
        .await;
    }

    /// Everything that `topic` holds.
    pub(crate) async fn read(&self, topic: &str) -> Vec<LogRecord> {
        read_topic(&self.kafka, topic, WITHIN).await
    }
}

/// A Kafka of one's own that asks for permission, and the program that takes and gives it (`java/Acl.java`); none where there is
/// no Kafka. The shared broker permits everything.
pub(crate) async fn guarded() -> Option<(TestKafka, JavaProgram)> {
    let authorizer = [
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        ),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let cluster = required(TestKafka::start_with(&authorizer).await)?;
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/support/java/Acl.java"
    );
    let acl = JavaProgram::new(source, Libraries::Kafka).await;
    Some((cluster, required(acl).expect("jars that the broker has")))
}

/// Waits until `since` is longer ago than a member may stay away.
pub(crate) async fn outlast_the_poll_interval(since: Instant) {
    let enough = POLL_INTERVAL_MAX + Duration::from_secs(2);
    eventually(
        "the longest time between polls has passed",
        WITHIN,
        || async { (since.elapsed() > enough).then_some(()) },
    )
    .await;
}

/// Shows what `RUST_LOG` asks for, to find out why a test fails.
fn log_as_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        // All tests but the first find it done.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    }
}

/// Sets a librdkafka property.
pub(crate) fn set(kafka: &mut KafkaConfig, property: &str) {
    kafka.set(property).expect("a property of librdkafka");
}

/// What a group has committed, and what a topic holds.
pub(crate) struct Offsets {
    client: Arc<BaseConsumer>,
    topic: String,
    partitions: i32,
}

impl Offsets {
    /// The committed offset of each partition that has one; none when the cluster does not answer.
    pub(crate) async fn committed(&self) -> Option<BTreeMap<i32, i64>> {
        let (client, topic, partitions) = (
            Arc::clone(&self.client),
            self.topic.clone(),
            self.partitions,
        );
        let look = move || {
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, partitions - 1);
            let found = client.committed_offsets(list, LOOK_WITHIN).ok()?;
            let committed = found.elements().into_iter().filter_map(|element| {
                element.error().ok()?;
                match element.offset() {
                    Offset::Offset(offset) => Some((element.partition(), offset)),
                    _ => None,
                }
            });
            Some(committed.collect())
        };
        tokio::task::spawn_blocking(look)
            .await
            .expect("the task does not panic")
    }

    /// The committed offset of one partition, 0 before the first commit.
    pub(crate) async fn committed_of(&self, partition: i32) -> i64 {
        eventually("the committed offsets can be read", WITHIN, || {
            self.committed()
        })
        .await
        .get(&partition)
        .copied()
        .unwrap_or(0)
    }

    /// What the group has committed beside one partition's offset.
    pub(crate) async fn metadata_of(&self, partition: i32) -> Option<String> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        let look = move || {
            let mut list = TopicPartitionList::new();
            list.add_partition(&topic, partition);
            let found = client.committed_offsets(list, LOOK_WITHIN).ok()?;
            let element = found.find_partition(&topic, partition)?;
            Some(element.metadata().to_owned())
        };
        tokio::task::spawn_blocking(look)
            .await
            .expect("the task does not panic")
    }

    /// Waits until the group has committed `offset` of this partition.
    pub(crate) async fn reach(&self, partition: i32, offset: i64) {
        let what = format!("{}/{partition} is committed to {offset}", self.topic);
        eventually(&what, WITHIN, || async {
            (self.committed_of(partition).await == offset).then_some(())
        })
        .await;
    }

    /// The end of each partition.
    pub(crate) async fn ends(&self) -> BTreeMap<i32, i64> {
        let (client, topic, partitions) = (
            Arc::clone(&self.client),
            self.topic.clone(),
            self.partitions,
        );
        let look = move || {
            let end = |partition| {
                let watermarks = client.fetch_watermarks(&topic, partition, LOOK_WITHIN);
                (
                    partition,
                    watermarks.expect("the brokers report the watermarks").1,
                )
            };
            (0..partitions).map(end).collect()
        };
        tokio::task::spawn_blocking(look)
            .await
            .expect("the task does not panic")
    }
}

/// Publishes records by this publisher, and returns when all are acknowledged.
pub(crate) async fn publish_by(
    publisher: &Publisher,
    records: impl IntoIterator<Item = OutgoingRecord>,
) -> Vec<Receipt> {
    let mut pending = Vec::new();
    for record in records {
        let queued = publisher.enqueue_record(record).await;
        pending.push(queued.expect("the buffer takes the record"));
    }
    let mut receipts = Vec::with_capacity(pending.len());
    for receipt in pending {
        receipts.push(receipt.await.expect("the brokers acknowledge the record"));
    }
    receipts
}

/// A member of a group in this process.
pub(crate) struct Member {
    pub(crate) health: Health,
    stop: CancellationToken,
    run: JoinHandle<Result<RunReport, ConsumerError>>,
}

/// A router, or something around one.
pub(crate) trait Handle:
    tower::Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<H> Handle for H where
    H: tower::Service<Delivery, Response = Outcome, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

impl Member {
    /// What its health notes beside which member it is.
    pub(crate) fn notes(&self) -> Vec<(String, String)> {
        let mut notes = self.health.notes();
        notes.retain(|(_, note)| !note.contains(", client "));
        notes
    }

    /// Starts a consumer.
    pub(crate) fn start(
        kafka: &KafkaConfig,
        settings: ConsumerSettings,
        handler: impl Handle,
    ) -> Self {
        Self::start_with(kafka, settings, handler, None)
    }

    /// [`Member::start`] with a publisher for its handlers.
    pub(crate) fn start_with(
        kafka: &KafkaConfig,
        settings: ConsumerSettings,
        handler: impl Handle,
        publisher: Option<Publisher>,
    ) -> Self {
        let mut consumer =
            Consumer::new(kafka.clone(), settings, handler).expect("settings that can be used");
        if let Some(publisher) = publisher {
            consumer = consumer.with_publisher(publisher);
        }
        Self::run(consumer, Health::default())
    }

    /// Runs this consumer, which reports to `health`.
    pub(crate) fn run(consumer: Consumer<impl Handle>, health: Health) -> Self {
        let stop = CancellationToken::new();
        let consumer = consumer.with_health(health.clone());
        let running = consumer.run(stop.clone());
        let run = tokio::spawn(async {
            let ended = running.await;
            ended.inspect_err(|error| tracing::error!(%error, "the member failed"))
        });
        Self { health, stop, run }
    }

    /// Asks it to stop, and returns what it did.
    pub(crate) async fn stop(self) -> RunReport {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> RunReport {
        let ended = tokio::time::timeout(WITHIN, self.run).await;
        let report = ended.expect("it ends in time").expect("it does not panic");
        report.expect("it ends well")
    }

    /// Waits until it has joined its group.
    pub(crate) async fn joined(&self) {
        eventually("the member has joined", WITHIN, || async {
            // Before its first step it has nothing to complain of.
            let mut components = self.health.components().into_iter();
            let reports = components.any(|name| name.starts_with("consumer "));
            (reports && self.health.not_ready().is_empty()).then_some(())
        })
        .await;
    }

    /// Waits until all of it is ready.
    pub(crate) async fn ready_again(&self) {
        self.ready_within(WITHIN).await;
    }

    /// Waits until all of it is ready, for at most this long.
    pub(crate) async fn ready_within(&self, limit: Duration) {
        eventually("it is ready again", limit, || async {
            self.health.not_ready().is_empty().then_some(())
        })
        .await;
    }

    /// Waits until its `component`, which is named with its group, is not ready, and returns its reason.
    pub(crate) async fn complaint(&self, component: &str) -> String {
        eventually(&format!("{component} complains"), WITHIN, || async {
            let complaints = self.health.not_ready();
            let is_it = |name: &str| name.split(' ').next() == Some(component);
            let complaint = complaints.into_iter().find(|(name, _)| is_it(name));
            complaint.map(|(_, reason)| reason)
        })
        .await
    }
}

/// Holds handlers until it is opened.
#[derive(Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everybody through from now on.
    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is open.
    pub(crate) async fn pass(&self) {
        let opened = self.0.subscribe().wait_for(|open| *open).await.map(drop);
        opened.expect("the gate outlives who waits at it");
    }
}

/// A list that handlers append to.
pub(crate) struct Log<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Log<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Log<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn push(&self, entry: T) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn entries(&self) -> Vec<T> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Waits until it has that many entries.
    pub(crate) async fn reach(&self, what: &str, entries: usize) {
        eventually(&format!("{entries} {what}"), WITHIN, || async {
            (self.len() >= entries).then_some(())
        })
        .await;
    }
}
