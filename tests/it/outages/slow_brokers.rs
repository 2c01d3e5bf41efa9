//! A broker that is down while others are up: what it leads waits, and nothing else does. On librdkafka's mock cluster.

use crate::support::{Case, Log, Member, set};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use std::time::{Duration, Instant};

const UP: i32 = 1;
const DOWN: i32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_record_on_a_dead_broker_delays_no_other() {
    let cluster = MockCluster::new(2).expect("the mock cluster starts");
    let topic = unique("it-dead-broker");
    let mut case = Case::named(KafkaConfig::new(cluster.bootstrap_servers()), topic, 2);
    set(&mut case.kafka, "session.timeout.ms=6000");
    let retry = retry_topic(&case.group, &case.topic);
    for topic in [&case.topic, &retry] {
        cluster
            .create_topic(topic, 2, 1)
            .expect("the topic is created");
        for (partition, leader) in [(0, UP), (1, DOWN)] {
            let led = cluster.partition_leader(topic, partition, Some(leader));
            led.expect("a leader");
        }
    }
    let led = cluster.coordinator(MockCoordinator::Group(case.group.clone()), UP);
    led.expect("a coordinator");
    let tried = Log::new();
    let start = || {
        let tried = tried.clone();
        let router = Router::new().raw(move |record: Record| {
            let value = record.value().unwrap_or_default().to_vec();
            let outcome = match &value[..] {
                b"fails" => Outcome::Retry(HandlerError::transient("not now")),
                _ => Outcome::Done,
            };
            tried.push((record.partition(), value, Instant::now()));
            std::future::ready(outcome)
        });
        let mut settings = case.settings();
        settings.retry.attempts_max = 1;
        settings.retry.park_delays = vec![Duration::from_millis(200); 10_000];
        settings.drain_timeout = Duration::from_secs(1);
        Member::start(&case.kafka, settings, router)
    };
    let member = start();
    // Records of one key wait for each other, whatever their partitions.
    let to = |partition: i32, value: &str| OutgoingRecord {
        partition: Some(partition),
        ..case.record(Some(&format!("k{partition}")), value.to_owned())
    };
    case.publish([to(0, "fails"), to(1, "fails")]).await;
    let attempts = |of: i32, since: Instant| {
        let entries = tried.entries().into_iter();
        entries
            .filter(|(partition, value, at)| *partition == of && value == b"fails" && *at > since)
            .count()
    };
    let began = Instant::now();
    eventually("both are tried again", Duration::from_secs(30), || async {
        (attempts(0, began) > 2 && attempts(1, began) > 2).then_some(())
    })
    .await;

    cluster.broker_down(DOWN).expect("a broker goes");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    // It is due every 200 ms. Behind the dead broker's time-outs it would have its turn every 6 to 10 s.
    eventually(
        "the other one is tried again and again",
        Duration::from_secs(20),
        || async { (attempts(0, since) >= 8).then_some(()) },
    )
    .await;

    // What is assigned now waits for its own leader only.
    member.stop().await;
    let member = start();
    case.publish([to(0, "fails"), to(0, "new")]).await;
    let began = Instant::now();
    eventually(
        "the open partition is handled",
        Duration::from_secs(30),
        || async { (attempts(0, began) > 0).then_some(()) },
    )
    .await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.starts_with("1 retry partition"), "{complaint}");
    cluster.broker_up(DOWN).expect("a broker comes");
    let began = Instant::now();
    eventually("the other one goes on", Duration::from_secs(30), || async {
        (attempts(1, began) > 0).then_some(())
    })
    .await;
    member.stop().await;
}
