use super::watch::Watch;
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
        watch.end().await?;
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
    let thread = std::thread::Builder::new().stack_size(usize::MAX / 16);
    let started = Watch::start_on(thread, sampler, Vec::new()).await;
    let error = started.err().expect("an error");
    assert_eq!(error.to_string(), "cannot start the sampler's thread");
}
