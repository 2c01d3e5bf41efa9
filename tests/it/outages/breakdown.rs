//! Parts of a consumer that push back, break or wait: the rest goes on, or the run ends and says why. On the mock cluster.

use crate::support::{Case, Log, Member, WITHIN};
use evenkeel::consumer::{Consumer, StopWhen};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::{eventually, unique};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use tower::limit::ConcurrencyLimitLayer;

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn scene() -> (Cluster, Case) {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let topic = unique("it-breakdown");
    cluster
        .create_topic(&topic, 2, 1)
        .expect("the topic is created");
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    (cluster, Case::named(kafka, topic, 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_pushes_back_holds_nothing_up_for_good() {
    let (_cluster, case) = scene();
    case.publish_load(200, 50).await;
    let router = Router::new().raw(async |_: Record| {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    let handler = ServiceBuilder::new()
        .layer(ConcurrencyLimitLayer::new(1))
        .service(router);
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    let consumer = Consumer::new(case.kafka.clone(), settings, handler).expect("it is usable");
    let run = tokio::time::timeout(WITHIN, consumer.run(CancellationToken::new()));
    let report = run.await.expect("it ends in time").expect("it ends well");
    assert_eq!(report.settled, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_waiting_for_an_attempt_take_nobodys_place() {
    let (_cluster, case) = scene();
    // Every even key fails, and there are more of them than handlers may run.
    case.publish_load(400, 40).await;
    let handled = Log::new();
    let log = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        let log = log.clone();
        async move {
            let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
            if key.ends_with(['0', '2', '4', '6', '8']) {
                return Outcome::Retry(HandlerError::transient("not yet"));
            }
            tokio::task::yield_now().await;
            log.push(key);
            Outcome::Done
        }
    });
    let mut settings = case.settings();
    (settings.concurrency, settings.workers) = (4, Some(2));
    settings.retry.backoff.initial = Duration::from_secs(20);
    let member = Member::start(&case.kafka, settings, router);
    handled.reach("records of other keys", 200).await;
    drop(member);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_below_its_committed_offset_restarts_at_its_beginning() {
    let (_cluster, case) = scene();
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &case.kafka.brokers)
        .set("group.id", &case.group)
        .create()
        .expect("a client");
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        let element = list.add_partition_offset(&case.topic, partition, Offset::Offset(1_000));
        element.expect("an offset");
    }
    client
        .commit(&list, CommitMode::Sync)
        .expect("the offsets are committed");
    case.publish_load(100, 10).await;

    let handled = Log::new();
    let log = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        log.push((record.partition(), record.offset()));
        std::future::ready(())
    });
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    let member = Member::start(&case.kafka, settings, router);
    let report = member.ended().await;
    assert_eq!((report.settled, handled.len()), (100, 100));
    let offsets = case.offsets();
    let ends = offsets.ends().await;
    eventually(
        "the group stands where the partitions end",
        WITHIN,
        || async { (offsets.committed().await? == ends).then_some(()) },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_records_keep_no_more_than_their_own_bytes() {
    const SLOW: usize = 16;
    let (_cluster, case) = scene();
    // Slow ones in every worker's share of a burst, once bursts are as large as they may be.
    let is_slow = |n: usize| (400..400 + 8 * SLOW).contains(&n) && n.is_multiple_of(8);
    let record = |n: usize| {
        let name = if is_slow(n) { "slow" } else { "k" };
        case.record(Some(&format!("{name}{n}")), vec![b'x'; 8 << 10])
    };
    case.publish((0..1_000).map(record)).await;
    let handled = Log::new();
    let log = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        let is_slow = record.key().unwrap_or_default().starts_with(b"slow");
        drop(record);
        let log = log.clone();
        async move {
            if is_slow {
                std::future::pending::<()>().await;
            }
            log.push(());
        }
    });
    let mut settings = case.settings();
    settings.in_flight_bytes_max = 1 << 20;
    let member = Member::start(&case.kafka, settings, router);
    handled.reach("other records", 1_000 - SLOW).await;
    drop(member);
}
