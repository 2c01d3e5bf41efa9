//! A reading to the end ends before an open transaction, and after the marker of a closed one. The
//! offsets of an open transaction are no progress.

use crate::support::Case;
use evenkeel::consumer::group_progress;
use evenkeel::kafka::admin::Admin;
use evenkeel::kafka::reader::{Reader, Reading};
use evenkeel::kafka::{KafkaConfig, KafkaError};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::time::{Duration, Instant};

/// Time limit of each request.
const WITHIN: Duration = Duration::from_secs(30);

/// The end of the reading, and the values that it has. Fails if it waits for anything.
fn read(kafka: &KafkaConfig, topic: &str) -> (Option<i64>, Vec<String>) {
    let mut reader = Reader::open(kafka, &Reading::whole([topic]), WITHIN).expect("it opens");
    let end = reader.spans().find_map(|span| span.end);
    let (begun, mut values) = (Instant::now(), Vec::new());
    while !reader.at_end() {
        assert!(begun.elapsed() < WITHIN, "no end after {values:?}");
        let record = reader.next(Duration::from_secs(1)).expect("a record");
        let value = record.and_then(|record| record.value);
        values.extend(value.map(|value| String::from_utf8_lossy(&value).into_owned()));
    }
    (end, values)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_to_the_end_does_not_wait_for_transactions() {
    let Some(case) = Case::new("it-open-transaction", 1).await else {
        return;
    };
    let (kafka, topic) = (case.kafka.clone(), case.topic.clone());
    let check = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("transactional.id", &topic)
            .create()
            .expect("a producer");
        producer.init_transactions(WITHIN).expect("it starts");
        let write = |value: &str| {
            producer.begin_transaction().expect("it begins");
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).payload(value);
            producer.send(record).expect("it is sent");
            producer.flush(WITHIN).expect("it is acknowledged");
        };
        // The brokers write a marker after they have answered the client.
        let reads = |end: i64, values: &[&str]| {
            let begun = Instant::now();
            loop {
                let found = read(&kafka, &topic);
                if found.0 == Some(end) && found.1 == values {
                    return;
                }
                assert!(
                    begun.elapsed() < WITHIN,
                    "{found:?}, not {values:?} up to {end}"
                );
            }
        };
        write("first");
        // The record is on the log, and nobody may read it yet.
        reads(0, &[]);
        producer.commit_transaction(WITHIN).expect("it commits");
        // A record and a marker.
        reads(2, &["first"]);
        write("second");
        reads(2, &["first"]);
        producer.abort_transaction(WITHIN).expect("it aborts");
        reads(4, &["first"]);
    };
    tokio::task::spawn_blocking(check)
        .await
        .expect("the task does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_offsets_of_a_transaction_are_no_progress() {
    let Some(case) = Case::new("it-pending-offsets", 1).await else {
        return;
    };
    let group = format!("{}-pending", case.topic);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &case.kafka.brokers)
        .set("transactional.id", &group)
        .create()
        .expect("a producer");
    tokio::task::block_in_place(|| {
        let member: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &case.kafka.brokers)
            .set("group.id", &group)
            .create()
            .expect("a consumer");
        let mut offsets = TopicPartitionList::new();
        let added = offsets.add_partition_offset(&case.topic, 0, Offset::Offset(5));
        added.expect("an offset");
        let metadata = member.group_metadata().expect("it has a group");
        producer.init_transactions(WITHIN).expect("it starts");
        producer.begin_transaction().expect("it begins");
        producer
            .send_offsets_to_transaction(&offsets, &metadata, WITHIN)
            .expect("the offsets are sent");
    });
    let soon = Admin::connect(&case.kafka, Duration::from_secs(5)).await;
    let soon = soon.expect("it connects");
    let pending = group_progress(&soon, &group, &case.topic, &[0]).await;
    let pending = pending.expect_err("the offset is pending");
    let KafkaError::Client { source, .. } = &pending else {
        panic!("{pending:?}");
    };
    let code = source.rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::UnstableOffsetCommit));

    tokio::task::block_in_place(|| producer.commit_transaction(WITHIN)).expect("it commits");
    let admin = Admin::connect(&case.kafka, WITHIN)
        .await
        .expect("it connects");
    let progress = group_progress(&admin, &group, &case.topic, &[0]).await;
    let progress = progress.expect("the offset is committed");
    assert_eq!(progress[0].committed, Some(5));
}
