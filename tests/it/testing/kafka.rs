//! The Kafka that tests get serves what clients ask of it, and is gone afterwards.
//!
//! Uses rdkafka directly, so that a broken test kit is not mistaken for a broken library.

use super::{kind_of_second, second_process};
use crate::support::kcat::kcat;
use evenkeel::testing::{
    ChildProcess, KafkaKind, StartError, TestKafka, eventually, real_kafka, unique,
};
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::Duration;

/// Stands before the brokers in what the process to be killed prints.
const BROKERS_MARK: &str = "brokers: ";

const WITHIN: Duration = Duration::from_secs(30);

/// Produces one record and reads it back through a group of its own.
async fn round_trip(kafka: &TestKafka, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.brokers());
    let producer: FutureProducer = config.create().expect("a producer");
    let record = FutureRecord::to(topic).key("order-1").payload("placed");
    let delivery = producer
        .send(record, WITHIN)
        .await
        .expect("the brokers acknowledge the record");

    config
        .set("group.id", unique("it-kafka"))
        .set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("the client subscribes");
    let message = eventually("the record comes back", WITHIN, || async {
        let message = tokio::task::block_in_place(|| consumer.poll(Duration::from_millis(100)))?;
        Some(message.expect("a record, not an error").detach())
    })
    .await;
    assert_eq!(message.key(), Some(b"order-1".as_slice()));
    assert_eq!(message.payload(), Some(b"placed".as_slice()));
    assert_eq!(
        (message.partition(), message.offset()),
        (delivery.partition, delivery.offset)
    );
}

fn listens(brokers: &str) -> bool {
    let address: SocketAddr = brokers
        .split(',')
        .next()
        .and_then(|first| first.parse().ok())
        .expect("an address");
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_makes_the_round_trip_on_apache_kafka() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let topic = unique("it-kafka");
    kafka
        .create_topic(&topic, 3)
        .await
        .expect("the topic is created");
    round_trip(kafka, &topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_makes_the_round_trip_on_the_mock_cluster() {
    let kafka = TestKafka::start(KafkaKind::Mock)
        .await
        .expect("the mock cluster");
    assert_eq!(kafka.kind(), KafkaKind::Mock);
    kafka
        .create_topic("orders", 3)
        .await
        .expect("the topic is created");
    round_trip(&kafka, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_exists_is_reported_rather_than_shared() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let topic = unique("it-kafka");
    kafka
        .create_topic(&topic, 1)
        .await
        .expect("the topic is created");
    let again = kafka.create_topic(&topic, 1).await;
    assert!(
        matches!(again, Err(StartError::TopicExists { .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn the_mock_cluster_ends_with_its_value() {
    let kafka = TestKafka::start(KafkaKind::Mock)
        .await
        .expect("the mock cluster");
    let brokers = kafka.brokers().to_owned();
    assert!(listens(&brokers));
    drop(kafka);
    eventually("its port is closed", WITHIN, || async {
        (!listens(&brokers)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_apache_kafka_of_our_own_ends_with_its_value() {
    if real_kafka()
        .await
        .is_none_or(|kafka| kafka.kind() == KafkaKind::Auto)
    {
        return;
    }
    let shared = real_kafka().await.expect("there is a shared Kafka");
    let kafka = TestKafka::start(shared.kind()).await.expect("a second one");
    let brokers = kafka.brokers().to_owned();
    assert!(listens(&brokers), "{}", kafka.description());
    drop(kafka);
    assert!(!listens(&brokers));
}

#[tokio::test]
async fn a_killed_process_leaves_no_kafka_behind() {
    if let Some(kind) = kind_of_second() {
        let kafka = TestKafka::start(kind).await.expect("asked for by kind");
        println!("{BROKERS_MARK}{}", kafka.brokers());
        return std::future::pending().await;
    }
    let Some(shared) = real_kafka().await else {
        return;
    };
    if shared.kind() == KafkaKind::Auto {
        return;
    }
    let mut command = second_process(
        "testing::kafka::a_killed_process_leaves_no_kafka_behind",
        shared.kind(),
    );
    command.stdout(Stdio::piped());
    let mut child = ChildProcess::start(command).expect("the test binary starts again");
    let line = child.printed(BROKERS_MARK, 4 * WITHIN).await;
    let (_, brokers) = line.split_once(BROKERS_MARK).expect("the mark");
    assert!(listens(brokers));
    child.kill().await;
    eventually("its Kafka is gone too", WITHIN, || async {
        (!listens(brokers)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn kcat_sees_the_topics_of_the_shared_kafka() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let topic = unique("it-kafka");
    kafka
        .create_topic(&topic, 2)
        .await
        .expect("the topic is created");
    let Some(listing) = kcat(kafka.brokers(), &["-L"], "").await else {
        return;
    };
    assert!(
        listing.contains(&format!("topic \"{topic}\" with 2 partitions")),
        "{listing}"
    );
}
