//! The publisher against librdkafka's mock cluster.

mod bursts;
mod delivery;
mod failures;
mod order;
mod refusals;

use super::*;
use crate::event::Headers;
use crate::kafka::reader::{LogRecord, Reader, Reading, Start};
use bytes::Bytes;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A cluster of one broker in this process.
type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> Cluster {
    MockCluster::new(1).expect("the mock cluster starts")
}

/// Creates a topic of its own for a test.
fn topic(cluster: &Cluster, partitions: i32) -> String {
    let name = format!("topic-{}", event::new_id());
    cluster
        .create_topic(&name, partitions, 1)
        .expect("the topic is created");
    name
}

fn publisher(cluster: &Cluster, properties: &[&str]) -> Publisher {
    publisher_with(cluster, properties, PublisherSettings::new("/test"))
}

fn publisher_with(
    cluster: &Cluster,
    properties: &[&str],
    settings: PublisherSettings,
) -> Publisher {
    let mut kafka = KafkaConfig::new(cluster.bootstrap_servers());
    for property in properties {
        kafka.set(property).expect("property");
    }
    Publisher::new(&kafka, settings).expect("the settings of the publisher are valid")
}

fn record(topic: &str, key: &str, value: impl Into<Bytes>) -> OutgoingRecord {
    OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

/// Reads one record of a partition back.
fn read_back(cluster: &Cluster, receipt: &Receipt) -> LogRecord {
    let reading = Reading {
        topics: vec![receipt.topic.clone()],
        partitions: vec![receipt.partition],
        start: Start::Offset(receipt.offset),
        end: None,
    };
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let mut reader = Reader::open(&kafka, &reading, LONG).expect("reader");
    reader.next(LONG).expect("no error").expect("a record")
}

/// Longer than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);
