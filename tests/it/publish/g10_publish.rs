//! G10: what was acknowledged is on the log; what is not acknowledged is said to be unknown; the buffer is bounded.

use crate::support::{Case, Step, WITHIN, set};
use evenkeel::kafka::KafkaConfig;
use evenkeel::publisher::{PublishError, Publisher, PublisherSettings, Unsent};
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::MockCluster;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_says_where_the_record_is() {
    let Some(case) = Case::new("it-g10", 6).await else {
        return;
    };
    let publisher = case.publisher();
    let mut sent = HashMap::new();
    for number in 0..50 {
        let record = case.step(&publisher, &format!("k{}", number % 10), number);
        let id = record.headers.last("ce_id").expect("an id").to_vec();
        let receipt = publisher
            .publish_record(record)
            .await
            .expect("the brokers acknowledge the record");
        sent.insert((receipt.partition, receipt.offset), id);
        // Acknowledged is readable: the end is past it at once.
        let end = case.offsets().ends().await[&receipt.partition];
        assert!(end > receipt.offset);
    }
    let on_the_log = case.read(&case.topic).await.into_iter().map(|record| {
        let id = record.headers.last("ce_id").expect("an id").to_vec();
        ((record.partition, record.offset), id)
    });
    assert_eq!(on_the_log.collect::<HashMap<_, _>>(), sent);
}

/// A mock cluster of one broker, a topic on it, and a publisher with room for ten records.
fn cut_off(
    properties: &[&str],
) -> (
    MockCluster<'static, rdkafka::producer::DefaultProducerContext>,
    Case,
    Publisher,
) {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let topic = unique("it-g10");
    cluster
        .create_topic(&topic, 1, 1)
        .expect("the topic is created");
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let mut case = Case::named(kafka, topic, 1);
    for property in properties {
        set(&mut case.kafka, property);
    }
    let mut settings = PublisherSettings::new("/it");
    settings.buffer_records_max = 10;
    let publisher =
        Publisher::new(&case.kafka, settings).expect("the settings of the publisher are valid");
    (cluster, case, publisher)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_leaves_an_unknown_outcome() {
    let (cluster, case, publisher) = cut_off(&["delivery.timeout.ms=5000"]);
    let first = publisher
        .publish_record(case.step(&publisher, "k", 0))
        .await;
    assert_eq!(first.expect("the brokers acknowledge the record").offset, 0);
    cluster.broker_down(-1).expect("the mock broker stops");
    let second = publisher
        .publish_record(case.step(&publisher, "k", 1))
        .await;
    assert!(
        matches!(second, Err(PublishError::Unknown { .. })),
        "{second:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_pushes_back_and_flush_counts_the_rest() {
    let (cluster, case, publisher) = cut_off(&[]);
    cluster.broker_down(-1).expect("the mock broker stops");
    let mut pending = Vec::new();
    for number in 0..10 {
        let record = case.step(&publisher, "k", number);
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let eleventh = publisher.enqueue_record(case.step(&publisher, "k", 10));
    tokio::pin!(eleventh);
    let pushed_back = tokio::time::timeout(Duration::from_millis(300), &mut eleventh).await;
    assert!(pushed_back.is_err(), "an eleventh record was taken");
    let unsent = publisher.flush(Duration::from_millis(100)).await;
    assert_eq!(unsent, Err(Unsent { records: 10 }));

    cluster.broker_up(-1).expect("the mock broker starts");
    pending.push(eleventh.await.expect("room again"));
    publisher.flush(WITHIN).await.expect("everything is sent");
    let mut offsets = Vec::new();
    for receipt in pending {
        offsets.push(
            receipt
                .await
                .expect("the brokers acknowledge the record")
                .offset,
        );
    }
    assert!(
        offsets.iter().copied().eq(0..11),
        "in the order in which they were enqueued: {offsets:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flapping_broker_leaves_no_gap_duplicate_or_disorder() {
    const KEYS: u64 = 20;
    const EVENTS: u64 = 4000;
    let cluster = MockCluster::new(3).expect("the mock cluster starts");
    let topic = unique("it-g10");
    cluster
        .create_topic(&topic, 4, 3)
        .expect("the topic is created");
    let case = Case::named(KafkaConfig::new(cluster.bootstrap_servers()), topic, 4);
    let publisher = case.publisher();
    let mut pending = Vec::new();
    for number in 0..EVENTS {
        let step = case.step(&publisher, &format!("k{}", number % KEYS), number / KEYS);
        pending.push(
            publisher
                .enqueue_record(step)
                .await
                .expect("the buffer takes the record"),
        );
        // One broker after the other, then all of them; each comes back after more was enqueued.
        let (turn, phase) = (number / 1000, number % 1000);
        let broker = [1, 2, 3, -1][turn as usize];
        match phase {
            300 => cluster.broker_down(broker).expect("the mock broker stops"),
            900 => {
                let left = publisher.flush(Duration::from_millis(200)).await;
                assert!(broker > 0 || left.is_err(), "all brokers are down");
                cluster.broker_up(broker).expect("the mock broker starts");
            }
            _ => {}
        }
    }
    for receipt in pending {
        receipt.await.expect("the brokers acknowledge the record");
    }
    let mut next: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for record in case.read(&case.topic).await {
        let step: Step =
            serde_json::from_slice(record.value.as_deref().expect("a value")).expect("a step");
        let next = next.entry(record.key.expect("a key")).or_default();
        assert_eq!(step.number, *next, "of {}", step.key);
        *next += 1;
    }
    assert_eq!(next.len() as u64, KEYS);
    assert!(next.values().all(|next| *next == EVENTS / KEYS));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_waits_for_the_acknowledgement() {
    let (cluster, case, publisher) = cut_off(&[]);
    let record = case.step(&publisher, "k", 0);
    cluster.broker_down(-1).expect("the mock broker stops");
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish_record(record).await }
    });
    eventually("the record is in the buffer", WITHIN, || async {
        let unsent = publisher.flush(Duration::from_millis(300)).await;
        (unsent == Err(Unsent { records: 1 })).then_some(())
    })
    .await;
    assert!(!publishing.is_finished());
    cluster.broker_up(-1).expect("the mock broker starts");
    let receipt = eventually("the acknowledgement", WITHIN, || async {
        publishing.is_finished().then_some(())
    });
    receipt.await;
    assert_eq!(
        publishing
            .await
            .expect("the task does not panic")
            .expect("the brokers acknowledge the record")
            .offset,
        0
    );
}
