//! Takes a sample once per second, in rounds of all parts, on a thread of its own.
//!
//! A round awaits each part for a limited time. A part that is late does not delay the others: it
//! keeps its last numbers until the answer comes, in a later round.
//!
//! The end of the drain relies on the order of the reads. Stores are read before the end offsets,
//! so that an event that left an outbox by then is on its topic. Committed and end offsets are read
//! at the same time; two looks tell more than one (`run/drain.rs`).

use super::brokers::Brokers;
use super::latest::{Latest, Look, Reading};
use super::readiness::ready_of;
use super::request::Request;
use super::store::StoreProbe;
use crate::cluster::Offsets;
use crate::shop::services::{GATEWAY, SERVICES};
use anyhow::{Context, anyhow};
use evenkeel::kafka::KafkaConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior};

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which new topics and deleted records are noticed. The services create their topics
/// when they start, before the first sample.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(10);
/// How long a round awaits the stores.
const STORES_WITHIN: Duration = Duration::from_millis(500);
/// How long a round awaits stores and brokers once everything is to be read at one time. A read
/// that takes longer than a round would otherwise never be of the round that asks for the others.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);
/// How long a round awaits the brokers.
const BROKERS_WITHIN: Duration = Duration::from_secs(1);

/// Reads all parts. Its clients and connections live as long as it does.
pub(crate) struct Sampler {
    brokers: Arc<Brokers>,
    stores: Vec<StoreProbe>,
    latest: Latest,
    partitions: Request<Offsets>,
    /// When the partitions of `latest` were asked for.
    partitions_at: Option<Instant>,
    committed: BTreeMap<&'static str, Request<Offsets>>,
    ends: Request<Offsets>,
    /// Whether rounds wait for [`WHOLE_WITHIN`].
    reads_whole: Arc<AtomicBool>,
}

impl Sampler {
    /// A sampler of the groups and of the stores in `directory`. Reads nothing yet.
    pub(crate) fn new(kafka: &KafkaConfig, directory: &Path) -> anyhow::Result<Self> {
        let services = || SERVICES.iter().map(|(service, _)| *service);
        let stores = services().chain([GATEWAY]);
        Ok(Self {
            brokers: Arc::new(Brokers::new(kafka)?),
            stores: stores
                .map(|service| StoreProbe::new(directory, service))
                .collect(),
            latest: Latest::new(Instant::now()),
            partitions: Request::default(),
            partitions_at: None,
            committed: services()
                .map(|service| (service, Request::default()))
                .collect(),
            ends: Request::default(),
            reads_whole: Arc::default(),
        })
    }

    /// Runs rounds until nobody watches.
    async fn run(mut self, looks: watch::Sender<Look>) {
        let mut ticks = ticks();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = looks.closed() => return,
            }
            looks.send_replace(self.round().await);
        }
    }

    /// How long this round awaits what usually takes less than `usual`.
    fn within(&self, usual: Duration) -> Duration {
        match self.reads_whole.load(Ordering::Relaxed) {
            true => WHOLE_WITHIN,
            false => usual,
        }
    }

    async fn round(&mut self) -> Look {
        let (began, mut faults) = (Instant::now(), Vec::new());
        self.read_stores(&mut faults).await;
        self.refresh_partitions(&mut faults).await;
        if !self.latest.first.is_empty() {
            self.read_positions(&mut faults).await;
        }
        self.latest.look(began, faults)
    }

    /// Reads all stores at the same time.
    async fn read_stores(&mut self, faults: &mut Vec<String>) {
        let (mut reads, within) = (JoinSet::new(), self.within(STORES_WITHIN));
        for mut probe in self.stores.drain(..) {
            reads.spawn(async move {
                let at = Instant::now();
                let read = tokio::time::timeout(within, probe.read()).await;
                let late = |_| anyhow!("no answer within {} ms", within.as_millis());
                (probe, at, read.map_err(late).flatten())
            });
        }
        for (probe, at, state) in reads.join_all().await {
            match state {
                Ok(value) => {
                    let reading = Reading { at, value };
                    self.latest.stores.insert(probe.service, reading);
                }
                Err(error) => faults.push(format!("the store of {}: {error:#}", probe.service)),
            }
            self.stores.push(probe);
        }
    }

    /// Refreshes the partitions when they are due. Only the first request is awaited.
    async fn refresh_partitions(&mut self, faults: &mut Vec<String>) {
        let now = Instant::now();
        let due = |at: Instant| now.duration_since(at) >= PARTITIONS_INTERVAL;
        if self.partitions_at.is_none_or(due) {
            let brokers = Arc::clone(&self.brokers);
            self.partitions.send(move || brokers.first_offsets());
        }
        let until = match self.partitions_at {
            None => now + BROKERS_WITHIN,
            Some(_) => now,
        };
        match self.partitions.answer(until).await {
            Some((at, Ok(first))) => {
                self.latest.first = Arc::new(first);
                self.partitions_at = Some(at);
            }
            Some((_, Err(error))) => faults.push(format!("the topics: {error:#}")),
            None => {}
        }
    }

    /// Reads committed offsets of all groups and end offsets at the same time.
    async fn read_positions(&mut self, faults: &mut Vec<String>) {
        for (service, request) in &mut self.committed {
            let (brokers, first) = (Arc::clone(&self.brokers), Arc::clone(&self.latest.first));
            let service = *service;
            request.send(move || brokers.committed(service, &first));
        }
        let (brokers, first) = (Arc::clone(&self.brokers), Arc::clone(&self.latest.first));
        self.ends.send(move || brokers.end_offsets(&first));
        let until = Instant::now() + self.within(BROKERS_WITHIN);
        for (service, request) in &mut self.committed {
            match request.answer(until).await {
                Some((at, Ok(value))) => {
                    let reading = Reading { at, value };
                    self.latest.committed.insert(*service, reading);
                }
                Some((_, Err(error))) => faults.push(format!("the group {service}: {error:#}")),
                None => {}
            }
        }
        match self.ends.answer(until).await {
            Some((at, Ok(value))) => self.latest.ends = Some(Reading { at, value }),
            Some((_, Err(error))) => faults.push(format!("the topics' ends: {error:#}")),
            None => {}
        }
    }
}

/// Takes samples in the background until it is dropped.
pub(crate) struct Watch {
    latest: watch::Receiver<Look>,
    ready: watch::Receiver<BTreeSet<u16>>,
    reads_whole: Arc<AtomicBool>,
}

impl Watch {
    /// Starts the sampler on a thread with a runtime of its own: callers and streams share the
    /// demo's, and would delay it under load. Waits for the end of the first round.
    ///
    /// # Errors
    /// If the thread cannot be started, or ends.
    pub(crate) async fn start(mut sampler: Sampler, admin_ports: Vec<u16>) -> anyhow::Result<Self> {
        let first = sampler.latest.look(Instant::now(), Vec::new());
        let reads_whole = Arc::clone(&sampler.reads_whole);
        let (looks, latest) = watch::channel(first);
        let (readiness, ready) = watch::channel(BTreeSet::new());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let sample = move || {
            runtime.block_on(async {
                tokio::join!(sampler.run(looks), probe(&admin_ports, readiness))
            });
            // Does not wait for requests to brokers.
            runtime.shutdown_background();
        };
        std::thread::Builder::new()
            .name("demo-sampler".to_owned())
            .spawn(sample)?;
        let mut watch = Self {
            latest,
            ready,
            reads_whole,
        };
        watch.next().await?;
        Ok(watch)
    }

    /// Has the rounds wait for slow stores and brokers from now on, so that all parts of a look are
    /// of one round.
    pub(crate) fn read_whole(&self) {
        self.reads_whole.store(true, Ordering::Relaxed);
    }

    /// The latest look.
    pub(crate) fn latest(&self) -> Look {
        self.latest.borrow().clone()
    }

    /// Waits for the next look.
    ///
    /// # Errors
    /// If the sampler's thread has ended.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Look> {
        let changed = self.latest.changed().await;
        changed.context("the sampler has ended")?;
        Ok(self.latest.borrow_and_update().clone())
    }

    /// Whether the daemon with this admin port was ready when it was asked last.
    pub(crate) fn is_ready(&self, admin_port: u16) -> bool {
        self.ready.borrow().contains(&admin_port)
    }
}

/// Asks all daemons once per second until nobody watches. Apart from the rounds, which a frozen
/// daemon must not delay.
async fn probe(admin_ports: &[u16], ready: watch::Sender<BTreeSet<u16>>) {
    let mut ticks = ticks();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = ready.closed() => return,
        }
        ready.send_replace(ready_of(admin_ports).await);
    }
}

/// Ticks at the interval, and at once after a round that took longer.
fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitoring::sample::Progress;
    use evenkeel::testing::{KafkaKind, TestKafka};
    use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};

    /// Longer than any step takes on a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    /// Writes five records to a topic, of which a group has settled two.
    fn write(kafka: &KafkaConfig, topic: &str, group: &str) {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &kafka.brokers);
        let producer: BaseProducer = config.create().expect("a producer");
        for _ in 0..5 {
            let record = BaseRecord::<(), str>::to(topic).partition(0).payload("x");
            let sent = producer.send(record).map_err(|(error, _)| error);
            sent.expect("it is queued");
        }
        producer.flush(LONG).expect("they are written");
        config.set("group.id", group);
        let member: BaseConsumer = config.create().expect("a consumer");
        let mut settled = TopicPartitionList::new();
        settled
            .add_partition_offset(topic, 0, Offset::Offset(2))
            .expect("a valid offset");
        let committed = member.commit(&settled, CommitMode::Sync);
        committed.expect("it is committed");
    }

    #[tokio::test]
    async fn positions_are_read_although_stores_are_missing() {
        let kafka = TestKafka::start(KafkaKind::Mock).await.expect("a cluster");
        let (topic, _) = SERVICES[0].1[0];
        let retry_topic = format!("retry.payments.{topic}");
        for name in [topic, retry_topic.as_str()] {
            let created = kafka.create_topic(name, 1).await;
            created.expect("a new topic");
        }
        write(&kafka.config(), topic, "payments");
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let sampler = Sampler::new(&kafka.config(), directory.path()).expect("the clients");
        let looked = tokio::time::timeout(LONG, async {
            let mut watch = Watch::start(sampler, Vec::new()).await?;
            let mut look = watch.latest();
            while look.positions_at.is_none() {
                look = watch.next().await?;
            }
            anyhow::Ok(look)
        });
        let look = looked.await.expect("in time").expect("no error");
        let progress = |settled| Progress {
            lag: 5 - settled,
            settled,
            effects: 0,
        };
        assert_eq!(look.sample.services["payments"], progress(2));
        assert_eq!(look.sample.services["inventory"], progress(0));
        assert_eq!((look.sample.published, look.sample.end), (5, 5));
        let is_store = |fault: &&String| fault.starts_with("the store of ");
        let stores = look.faults.iter().filter(is_store).count();
        assert_eq!(stores, SERVICES.len() + 1, "{:?}", look.faults);
        assert!(!look.is_complete());
    }
}
