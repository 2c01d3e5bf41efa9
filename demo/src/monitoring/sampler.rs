//! Takes a sample once per second, in rounds of all parts, on a thread of its own.
//!
//! A round requests every part and awaits the answers for a limited time. A part that is late does
//! not delay the others: it keeps its last numbers until the answer comes, in a later round. Parts
//! have no order within a round; the end of the drain does not rely on one (`run/drain.rs`).

use super::brokers::{Answers, Brokers, Place, fault};
use super::latest::{Latest, Reading, Round, keep};
use super::log_requests::{LogAnswer, LogRequests};
use super::rates::History;
use super::readiness::ready_of;
use super::request::Request;
use super::store::{StoreProbe, StoreState};
use crate::shop::services::{GATEWAY, SERVICES};
use anyhow::Context;
use evenkeel::kafka::KafkaConfig;
use rdkafka::error::KafkaError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use tokio::time::{Interval, MissedTickBehavior};

/// Interval between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which new topics are noticed. The services create theirs when they start, before the
/// first sample.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(10);
/// How long a round awaits answers. It is less than the interval, so that a late part delays the
/// others by less.
const ROUND_WITHIN: Duration = Duration::from_millis(700);

/// Reads all parts. Its clients and connections live as long as it does.
pub(crate) struct Sampler {
    brokers: Arc<Brokers>,
    latest: Latest,
    partitions: Request<BTreeSet<Place>>,
    /// When the partitions were requested last, with success.
    partitions_at: Option<Instant>,
    committed: BTreeMap<&'static str, Request<Answers<Option<i64>>>>,
    logs: LogRequests,
    stores: Vec<Store>,
}

/// The store of a service, or of the gateways.
struct Store {
    service: &'static str,
    probe: Arc<Mutex<StoreProbe>>,
    request: Request<StoreState>,
}

impl Sampler {
    /// A sampler of the groups and of the stores in `directory`. Reads nothing yet.
    pub(crate) fn new(kafka: &KafkaConfig, directory: &Path) -> anyhow::Result<Self> {
        let services = || SERVICES.iter().map(|(service, _)| *service);
        let store = |service| Store {
            service,
            probe: Arc::new(Mutex::new(StoreProbe::new(directory, service))),
            request: Request::default(),
        };
        Ok(Self {
            brokers: Arc::new(Brokers::new(kafka)?),
            latest: Latest::new(Instant::now()),
            partitions: Request::default(),
            partitions_at: None,
            committed: services()
                .map(|service| (service, Request::default()))
                .collect(),
            logs: LogRequests::default(),
            stores: services().chain([GATEWAY]).map(store).collect(),
        })
    }

    /// Runs rounds until nobody watches.
    async fn run(mut self, rounds: watch::Sender<Round>) {
        let (mut ticks, mut history) = (ticks(), History::default());
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = rounds.closed() => return,
            }
            let mut round = self.round().await;
            if let Some(at) = round.positions_at {
                history.add(at, &round.sample);
            }
            round.rates = history.rates();
            rounds.send_replace(round);
        }
    }

    /// Runs a round. It has no rates. Partitions that it lists are read in the next one.
    pub(crate) async fn round(&mut self) -> Round {
        // The late answers of earlier rounds.
        self.receive(Instant::now()).await;
        self.send();
        self.receive(Instant::now() + ROUND_WITHIN).await;
        self.latest.merge(Instant::now())
    }

    /// Sends the requests of a round, except those that are still under way.
    fn send(&mut self) {
        // While a partition is refused its leader may have changed, so all are listed again.
        let is_due = |at: Instant| at.elapsed() >= PARTITIONS_INTERVAL;
        if !self.latest.is_sound() || self.partitions_at.is_none_or(is_due) {
            let brokers = Arc::clone(&self.brokers);
            self.partitions.send_blocking(move || brokers.partitions());
        }
        let partitions = &self.latest.partitions;
        if !partitions.is_empty() {
            for (service, request) in &mut self.committed {
                let (brokers, partitions) = (Arc::clone(&self.brokers), Arc::clone(partitions));
                let service = *service;
                request.send_blocking(move || brokers.committed(service, &partitions));
            }
            self.logs.send(&self.brokers, partitions);
        }
        for Store { probe, request, .. } in &mut self.stores {
            let probe = Arc::clone(probe);
            request.send(async move { probe.lock_owned().await.read().await });
        }
    }

    /// Keeps the answers that have come by `until`.
    async fn receive(&mut self, until: Instant) {
        let latest = &mut self.latest;
        if let Some((at, answer)) = self.partitions.answer(until).await {
            let listed = answer.map(|listed| {
                Arc::make_mut(&mut latest.partitions).extend(listed);
                self.partitions_at = Some(at);
            });
            latest.set_fault(
                "the list of topics".to_owned(),
                listed.err().as_ref().and_then(fault),
            );
        }
        for (service, request) in &mut self.committed {
            if let Some((at, answer)) = request.answer(until).await {
                let readings = latest.committed.entry(*service).or_default();
                let refused = match answer {
                    Ok(answers) => first_refusal(&keep(readings, at, answers)),
                    Err(error) => fault(&error),
                };
                latest.set_fault(format!("the group {service}"), refused);
            }
        }
        for answer in self.logs.answers(until).await {
            keep_logs(latest, answer);
        }
        for Store {
            service, request, ..
        } in &mut self.stores
        {
            if let Some((at, answer)) = request.answer(until).await {
                let state = answer.map(|value| {
                    latest.stores.insert(*service, Reading { at, value });
                });
                latest.set_fault(
                    format!("the store of {service}"),
                    state.err().as_ref().and_then(fault),
                );
            }
        }
    }
}

/// Keeps the answer to a request for offsets.
fn keep_logs(latest: &mut Latest, received: LogAnswer) {
    let LogAnswer {
        topics,
        sent,
        answer,
    } = received;
    let part = |topic: &str| format!("the topic {topic}");
    match answer {
        Ok(answers) => {
            for topic in &topics {
                latest.set_fault(part(topic), None);
            }
            for ((topic, partition), error) in keep(&mut latest.logs, sent, answers) {
                let fault = format!("partition {partition}: {error}");
                latest.set_fault(part(&topic), Some(fault));
            }
        }
        // Each topic has a request of its own now, which fails too if the fault lasts.
        Err(_) if topics.len() > 1 => {}
        Err(error) => {
            let fault = fault(&error);
            for topic in &topics {
                latest.set_fault(part(topic), fault.clone());
            }
        }
    }
}

/// Why the first of the partitions was refused.
fn first_refusal(refused: &[(Place, KafkaError)]) -> Option<String> {
    let ((topic, partition), error) = refused.first()?;
    Some(format!("{topic}/{partition}: {error}"))
}

/// Takes samples in the background until it is dropped.
pub(crate) struct Watch {
    latest: watch::Receiver<Round>,
    ready: watch::Receiver<BTreeSet<u16>>,
}

impl Watch {
    /// Starts the sampler on a thread with a runtime of its own: callers and streams share the
    /// demo's, and would delay it under load. Waits for the end of the first round.
    ///
    /// # Errors
    /// If the thread cannot be started, or ends.
    pub(crate) async fn start(sampler: Sampler, admin_ports: Vec<u16>) -> anyhow::Result<Self> {
        let thread = thread::Builder::new().name("demo-sampler".to_owned());
        Self::start_on(thread, sampler, admin_ports).await
    }

    async fn start_on(
        thread: thread::Builder,
        sampler: Sampler,
        admin_ports: Vec<u16>,
    ) -> anyhow::Result<Self> {
        let (rounds, latest) = watch::channel(sampler.latest.merge(Instant::now()));
        let (readiness, ready) = watch::channel(BTreeSet::new());
        // The runtime is made on its thread: it must not be dropped here, in another runtime.
        let sample = move || -> std::io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                tokio::join!(sampler.run(rounds), probe(&admin_ports, readiness))
            });
            // Does not wait for requests to brokers.
            runtime.shutdown_background();
            Ok(())
        };
        let thread = thread
            .spawn(sample)
            .context("cannot start the sampler's thread")?;
        let mut watch = Self { latest, ready };
        let Err(ended) = watch.next().await else {
            return Ok(watch);
        };
        match thread.join() {
            Ok(Err(error)) => Err(error).context("cannot start the sampler's runtime"),
            _ => Err(ended),
        }
    }

    /// The latest round.
    pub(crate) fn latest(&self) -> Round {
        self.latest.borrow().clone()
    }

    /// Waits for the end of the next round.
    ///
    /// # Errors
    /// If the sampler's thread has ended.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Round> {
        let changed = self.latest.changed().await;
        changed.context("the sampler has ended")?;
        Ok(self.latest.borrow_and_update().clone())
    }

    /// Whether the daemon with this admin port was ready when it was asked last.
    pub(crate) fn is_ready(&self, admin_port: u16) -> bool {
        self.ready.borrow().contains(&admin_port)
    }
}

/// Probes all daemons once per second until nobody watches. Apart from the rounds, which a frozen
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
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
    use rdkafka::types::RDKafkaRespErr;
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

    /// A topic that every service reads.
    fn read_by_all() -> &'static str {
        SERVICES[0].1[0].0
    }

    fn progress(settled: i64, known: usize) -> Progress {
        Progress {
            lag: 5 - settled,
            settled,
            known,
            ..Progress::default()
        }
    }

    /// Runs rounds until one is as expected.
    async fn round_until(sampler: &mut Sampler, is_expected: impl Fn(&Round) -> bool) -> Round {
        let rounds = async {
            loop {
                let round = sampler.round().await;
                if is_expected(&round) {
                    return round;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let round = tokio::time::timeout(LONG, rounds).await;
        round.expect("in time")
    }

    #[tokio::test]
    async fn positions_are_read_although_stores_are_missing() {
        let kafka = TestKafka::start(KafkaKind::Mock).await.expect("a cluster");
        let topic = read_by_all();
        let retry_topic = format!("retry.payments.{topic}");
        for name in [topic, retry_topic.as_str()] {
            let created = kafka.create_topic(name, 1).await;
            created.expect("a new topic");
        }
        write(&kafka.config(), topic, "payments");
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let sampler = Sampler::new(&kafka.config(), directory.path()).expect("the clients");
        let started = Instant::now();
        let sampled = tokio::time::timeout(LONG, async {
            let mut watch = Watch::start(sampler, Vec::new()).await?;
            let mut round = watch.latest();
            while !round.is_known() {
                round = watch.next().await?;
            }
            anyhow::Ok(round)
        });
        let round = sampled.await.expect("in time").expect("no error");
        assert_eq!(round.sample.services["payments"], progress(2, 2));
        assert_eq!(round.sample.services["inventory"], progress(0, 1));
        assert_eq!((round.sample.published, round.sample.end), (5, 5));
        let is_store = |fault: &&String| fault.starts_with("the store of ");
        let stores = round.faults.iter().filter(is_store).count();
        assert_eq!(stores, SERVICES.len() + 1, "{:?}", round.faults);
        assert!(!round.is_read_after(started));
    }

    /// A cluster with a topic that every service reads and a retry topic of payments, of two
    /// partitions each. Five records are in the former, of which payments has settled two.
    fn cluster(
        retry_topic: &str,
    ) -> (
        MockCluster<'static, DefaultProducerContext>,
        Sampler,
        tempfile::TempDir,
    ) {
        let cluster = MockCluster::new(1).expect("a cluster");
        for name in [read_by_all(), retry_topic] {
            cluster.create_topic(name, 2, 1).expect("a new topic");
        }
        let kafka = KafkaConfig::new(cluster.bootstrap_servers());
        write(&kafka, read_by_all(), "payments");
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let sampler = Sampler::new(&kafka, directory.path()).expect("the clients");
        (cluster, sampler, directory)
    }

    #[tokio::test]
    async fn a_topic_whose_leaders_are_unknown_delays_no_other_and_is_no_zero() {
        let retry_topic = format!("retry.payments.{}", read_by_all());
        let (cluster, mut sampler, _directory) = cluster(&retry_topic);
        let answer_with = |error| cluster.topic_error(&retry_topic, error).expect("a topic");
        answer_with(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE);
        let is_sampled = |round: &Round| round.positions_at.is_some();
        let round = round_until(&mut sampler, is_sampled).await;
        let expected = Progress {
            unknown: 2,
            ..progress(2, 2)
        };
        assert_eq!(round.sample.services["payments"], expected);
        assert_eq!(round.sample.services["inventory"], progress(0, 2));
        // The topic that answers is read again while the other one does not.
        let later = round.ended;
        let is_fresh = |round: &Round| round.positions_at > Some(later);
        let round = round_until(&mut sampler, is_fresh).await;
        assert_eq!(round.sample.services["payments"], expected);
        answer_with(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
        let round = round_until(&mut sampler, Round::is_known).await;
        assert_eq!(round.sample.services["payments"], progress(2, 4));
    }

    #[tokio::test]
    async fn a_partition_without_a_leader_delays_no_other_of_its_topic() {
        let retry_topic = format!("retry.payments.{}", read_by_all());
        let (cluster, mut sampler, _directory) = cluster(&retry_topic);
        let lead_by = |broker| cluster.partition_leader(read_by_all(), 1, broker);
        lead_by(None).expect("a partition");
        let is_sampled = |round: &Round| {
            let payments = round.sample.services["payments"];
            (payments.known, payments.unknown) == (3, 1)
        };
        let round = round_until(&mut sampler, is_sampled).await;
        let fault = format!("the topic {}: partition 1: ", read_by_all());
        let is_named = round.faults.iter().any(|line| line.starts_with(&fault));
        assert!(is_named, "{:?}", round.faults);
        lead_by(Some(1)).expect("a partition");
        let round = round_until(&mut sampler, Round::is_known).await;
        assert_eq!(round.sample.services["payments"], progress(2, 4));
        assert!(!round.faults.iter().any(|line| line.starts_with(&fault)));
    }

    #[tokio::test]
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    async fn a_thread_that_cannot_be_started_is_an_error() {
        let directory = tempfile::tempdir().expect("a temporary folder is created");
        let kafka = KafkaConfig::new("127.0.0.1:1");
        let sampler = Sampler::new(&kafka, directory.path()).expect("the clients");
        let thread = thread::Builder::new().stack_size(usize::MAX / 16);
        let started = Watch::start_on(thread, sampler, Vec::new()).await;
        let error = started.err().expect("an error");
        assert_eq!(error.to_string(), "cannot start the sampler's thread");
    }
}
