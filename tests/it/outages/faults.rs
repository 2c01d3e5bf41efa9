//! Brokers that refuse, move, go away and answer late: nothing is lost, nothing is committed past what is unsettled, and
//! the consumer goes on. On librdkafka's mock cluster, which can be told to fail.

use crate::support::{Case, Gate, Log, Member, WITHIN, set};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

type Cluster = MockCluster<'static, DefaultProducerContext>;

const RECORDS: usize = 3000;
const PARTITIONS: i32 = 3;

/// A member at work on a mock cluster, and what it has handled.
struct Scene {
    cluster: Cluster,
    case: Case,
    member: Member,
    handled: Log<(i32, i64)>,
    /// Lets the second half of the records be handled.
    second_half: Gate,
    published: AtomicUsize,
    /// How far each partition was seen committed.
    seen: Mutex<BTreeMap<i32, i64>>,
}

impl Scene {
    /// Publishes the records, and lets a member handle the first half of them.
    async fn begin() -> Self {
        let cluster = Cluster::new(3).expect("the mock cluster starts");
        let topic = unique("it-faults");
        cluster
            .create_topic(&topic, PARTITIONS, 3)
            .expect("the topic is created");
        let mut case = Case::named(
            KafkaConfig::new(cluster.bootstrap_servers()),
            topic,
            PARTITIONS,
        );
        // A member that has to join again is not waited for under its old name for long.
        set(&mut case.kafka, "session.timeout.ms=6000");
        publish(&case, 0..RECORDS).await;
        let (handled, second_half) = (Log::new(), Gate::closed());
        let (log, gate) = (handled.clone(), second_half.clone());
        let router = Router::new().raw(move |record: Record| {
            let (log, gate) = (log.clone(), gate.clone());
            async move {
                if record.offset() >= (RECORDS / 2 / PARTITIONS as usize) as i64 {
                    gate.pass().await;
                }
                tokio::time::sleep(Duration::from_micros(500)).await;
                log.push((record.partition(), record.offset()));
            }
        });
        let mut settings = case.settings();
        // Records of the second half wait beside those of the first, not in front of them.
        settings.concurrency = RECORDS;
        let member = Member::start(&case.kafka, settings, router);
        handled
            .reach("records of the first half", RECORDS / 2)
            .await;
        Self {
            cluster,
            case,
            member,
            handled,
            second_half,
            published: AtomicUsize::new(RECORDS),
            seen: Mutex::default(),
        }
    }

    /// Publishes so many more.
    async fn more(&self, records: usize) {
        let first = self.published.fetch_add(records, Ordering::Relaxed);
        publish(&self.case, first..first + records).await;
    }

    /// Waits until everything that was published is committed.
    async fn all_committed(&self) {
        let published = self.published.load(Ordering::Relaxed);
        eventually("everything is committed", 2 * WITHIN, || async {
            (self.look().await? == published as i64).then_some(())
        })
        .await;
    }

    /// Checks that no partition's commit went back or is past a record that was not handled.
    async fn look(&self) -> Option<i64> {
        let committed = self.case.offsets().committed().await?;
        let handled: HashSet<(i32, i64)> = self.handled.entries().into_iter().collect();
        let mut seen = self.seen.lock().expect("no thread panicked with the lock");
        for (partition, offset) in &committed {
            let before = seen.insert(*partition, *offset).unwrap_or(0);
            assert!(
                before <= *offset,
                "{partition} went from {before} to {offset}"
            );
            assert!(
                (0..*offset).all(|offset| handled.contains(&(*partition, offset))),
                "{partition} is committed to {offset}, past a record that was not handled"
            );
        }
        Some(seen.values().sum())
    }

    /// Waits until what was handled is committed and no more, then lets the rest be handled, and waits for that.
    async fn finish(self) {
        if !self.second_half.is_open() {
            eventually("the first half is committed", 2 * WITHIN, || async {
                (self.look().await? == (RECORDS / 2) as i64).then_some(())
            })
            .await;
            self.second_half.open();
        }
        self.all_committed().await;
        let handled: HashSet<(i32, i64)> = self.handled.entries().into_iter().collect();
        assert_eq!(handled.len(), self.published.load(Ordering::Relaxed));
        assert!(self.member.stop().await.clean);
    }
}

/// Publishes records by their number, to the partitions in turn.
async fn publish(case: &Case, numbers: Range<usize>) {
    let record = |n: usize| {
        let mut record = case.record(Some(&format!("k{n}")), n.to_string());
        record.partition = Some((n % PARTITIONS as usize) as i32);
        record
    };
    case.publish(numbers.map(record)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_are_refused_are_made_again() {
    let scene = Scene::begin().await;
    let refusals = [
        Code::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
        Code::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
        Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        Code::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    scene
        .cluster
        .request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_moves_is_followed() {
    let scene = Scene::begin().await;
    scene.second_half.open();
    for broker in [2, 3, 1] {
        let coordinator = MockCoordinator::Group(scene.case.group.clone());
        scene
            .cluster
            .coordinator(coordinator, broker)
            .expect("the mock cluster moves the coordinator");
        // Each move finds something to commit.
        scene.more(300).await;
        scene.all_committed().await;
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_and_come_back_cost_nothing_but_time() {
    let scene = Scene::begin().await;
    scene
        .cluster
        .broker_down(-1)
        .expect("the mock broker stops");
    let complaint = scene.member.complaint("consumer").await;
    assert!(complaint.contains("no broker"), "{complaint}");
    // Handled while nothing can be committed.
    scene.second_half.open();
    scene
        .handled
        .reach("records handled", RECORDS / 2 + 1)
        .await;
    scene.cluster.broker_up(-1).expect("the mock broker starts");
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_after_the_other_goes_and_comes_back() {
    let scene = Scene::begin().await;
    for broker in 1..=3 {
        scene
            .cluster
            .broker_down(broker)
            .expect("the mock broker stops");
        let handled = scene.handled.len();
        scene.second_half.open();
        scene
            .handled
            .reach("records handled", (handled + 1).min(RECORDS))
            .await;
        scene
            .cluster
            .broker_up(broker)
            .expect("the mock broker starts");
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_round_trips_slow_commits_and_nothing_else() {
    let scene = Scene::begin().await;
    scene
        .cluster
        .broker_round_trip_time(-1, Duration::from_millis(400))
        .expect("the mock cluster delays its answers");
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fetches_and_heartbeats_that_fail_are_tried_again() {
    let scene = Scene::begin().await;
    let errors = [
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Code::RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    scene.cluster.request_errors(RDKafkaApiKey::Fetch, &errors);
    let errors = [
        Code::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
        Code::RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
    ];
    scene
        .cluster
        .request_errors(RDKafkaApiKey::Heartbeat, &errors);
    // What comes now can only be had by fetching again.
    scene.second_half.open();
    scene.more(RECORDS).await;
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_brokers_ends_in_time_and_unclean() {
    let scene = Scene::begin().await;
    scene.second_half.open();
    scene
        .cluster
        .broker_down(-1)
        .expect("the mock broker stops");
    scene.member.complaint("consumer").await;
    let asked = Instant::now();
    let report = scene.member.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(45),
        "{:?}",
        asked.elapsed()
    );
    scene.cluster.broker_up(-1).expect("the mock broker starts");
    assert!(!report.clean, "nothing could be committed: {report:?}");
    let committed: i64 = scene
        .case
        .offsets()
        .committed()
        .await
        .expect("the cluster answers")
        .values()
        .sum();
    assert!(
        committed <= report.settled as i64,
        "{committed} of {report:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_unreachable_parked_records() {
    const DELAY: Duration = Duration::from_millis(500);
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let case = Case::named(kafka, unique("it-faults-parked"), 1);
    for topic in [&case.topic, &retry_topic(&case.group, &case.topic)] {
        cluster
            .create_topic(topic, 1, 1)
            .expect("the topic is created");
    }
    let attempts = Log::new();
    let router = {
        let attempts = attempts.clone();
        Router::new().raw(move |_: Record| {
            attempts.push(());
            async { Err::<(), _>(HandlerError::transient("not now")) }
        })
    };
    let mut settings = case.settings();
    settings.drain_timeout = DELAY;
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![DELAY; 1_000];
    let member = Member::start(&case.kafka, settings, router);
    case.publish([case.record(Some("k"), "v")]).await;
    attempts.reach("attempts", 3).await;
    cluster.broker_down(1).expect("a broker that goes");
    let down_since = Instant::now();
    // The record is due by then, and looked for.
    tokio::time::sleep(DELAY * 3 / 2).await;
    member.stop().await;
    let stopped_after = down_since.elapsed();
    // A fetch that nobody answers takes ten seconds, and began after the broker went.
    assert!(stopped_after < Duration::from_secs(10), "{stopped_after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_at_a_records_position_loses_nothing_after_rebalance() {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let mut kafka = KafkaConfig::new(cluster.bootstrap_servers());
    // A mock cluster takes a second less than this for each rebalance.
    set(&mut kafka, "session.timeout.ms=6000");
    let case = Case::named(kafka, unique("it-faults-error"), 1);
    cluster
        .create_topic(&case.topic, 1, 1)
        .expect("the topic is created");
    let handled = Log::new();
    let router = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            handled.push(record.offset());
            async {}
        })
    };
    let start = || Member::start(&case.kafka, case.settings(), router.clone());
    let first = start();
    case.publish([case.record(Some("k"), "0")]).await;
    handled.reach("records", 1).await;
    let errors = [Code::RD_KAFKA_RESP_ERR_UNKNOWN];
    cluster.request_errors(RDKafkaApiKey::Fetch, &errors);
    first.complaint("consumer").await;
    // Where the partition stays, it is read on from where the client takes itself to be.
    let second = start();
    second.joined().await;
    case.publish([case.record(Some("k"), "1"), case.record(Some("k"), "2")])
        .await;
    case.all_committed().await;
    for member in [first, second] {
        assert!(member.stop().await.clean);
    }
    assert_eq!(handled.entries(), [0, 1, 2]);
}
