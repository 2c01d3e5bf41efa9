//! Refusals, unknown outcomes, deadlines and ends.

use super::super::error::{Failure, classify};
use super::*;
use futures_util::FutureExt;
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode as Code, RDKafkaRespErr};
use std::task::{Context, Wake, Waker};

#[tokio::test]
async fn a_missing_acknowledgement_is_unknown_and_names_the_broker() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster.broker_down(-1).expect("the mock broker stops");
    let publisher = publisher(&cluster, &["delivery.timeout.ms=500"]);
    let outcome = publisher.publish_record(record(&topic, "k", "v")).await;
    match outcome.expect_err("no broker") {
        PublishError::Unknown { topic: on, reason } => {
            assert_eq!(on, topic);
            assert!(reason.contains("delivery.timeout.ms"), "{reason}");
            assert!(reason.contains("127.0.0.1"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unknown_topic_is_refused_soon_with_the_creating_command() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster
        .topic_error(
            &topic,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        )
        .expect("topic error");
    let publisher = publisher(&cluster, &["topic.metadata.propagation.max.ms=200"]);
    let outcome = publisher.publish_record(record(&topic, "k", "v")).await;
    let error = outcome.expect_err("no topic");
    assert!(matches!(error, PublishError::NoTopic { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("evenkeel topics create {topic}")),
        "{text}"
    );
}

#[tokio::test]
async fn an_oversized_record_is_refused_and_the_next_is_published() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &["message.max.bytes=2000"]);
    let outcome = publisher
        .publish_record(record(&topic, "k", vec![b'x'; 5000]))
        .await;
    let error = outcome.expect_err("too large");
    assert!(matches!(error, PublishError::TooLarge { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("5001 bytes") && text.contains("max.message.bytes"),
        "{text}"
    );
    let next = publisher.publish_record(record(&topic, "k", "v")).await;
    assert_eq!(next.expect("published").offset, 0);
    publisher
        .flush(Duration::ZERO)
        .await
        .expect("nothing pending");
}

#[tokio::test]
async fn a_record_the_broker_refuses_is_refused_with_advice() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &[]);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
    );
    let outcome = publisher.publish_record(record(&topic, "k", "v")).await;
    let error = outcome.expect_err("not allowed");
    assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");
    assert!(error.to_string().contains("ACL"), "{error}");
}

#[tokio::test]
async fn a_passing_error_is_tried_again_without_a_second_record() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &[]);
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        ],
    );
    for offset in 0..3 {
        let receipt = publisher.publish_record(record(&topic, "k", "v")).await;
        assert_eq!(receipt.expect("published").offset, offset);
    }
}

#[tokio::test]
async fn impossible_destinations_are_refused() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &["topic.metadata.propagation.max.ms=200"]);
    for name in ["", "with\0nul", "sla/sh", "..", &"x".repeat(250)] {
        let outcome = publisher.publish_record(record(name, "k", "v")).await;
        let error = outcome.expect_err("no topic name");
        assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");
    }
    let mut nowhere = record(&topic, "k", "v");
    nowhere.partition = Some(7);
    let error = publisher
        .publish_record(nowhere)
        .await
        .expect_err("no such partition");
    assert!(
        matches!(error, PublishError::NoPartition { .. }),
        "{error:?}"
    );
    publisher
        .flush(Duration::ZERO)
        .await
        .expect("nothing pending");
}

#[tokio::test]
async fn a_flush_without_brokers_counts_the_unsent_at_its_deadline() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster.broker_down(-1).expect("the mock broker stops");
    let publisher = publisher(&cluster, &[]);
    let mut pending = Vec::new();
    for _ in 0..7 {
        let record = record(&topic, "k", "v");
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let unsent = publisher.flush(Duration::from_millis(200)).await;
    assert_eq!(unsent, Err(Unsent { records: 7 }));
    // The client still tries them.
    cluster.broker_up(-1).expect("the mock broker starts");
    publisher
        .flush(LONG)
        .await
        .expect("every record is sent in time");
    for receipt in pending {
        receipt.await.expect("published");
    }
}

#[tokio::test]
async fn receipts_of_a_publisher_that_ended_resolve_to_an_error() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    cluster.broker_down(-1).expect("the mock broker stops");
    let publisher = publisher(&cluster, &[]);
    let receipt = publisher
        .enqueue_record(record(&topic, "k", "v"))
        .await
        .expect("the buffer takes the record");
    drop(publisher);
    let error = receipt.await.expect_err("never sent");
    assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");
}

/// A task that keeps the thread that wakes it busy for a while.
struct SlowTask;

impl Wake for SlowTask {
    fn wake(self: Arc<Self>) {
        std::thread::sleep(Duration::from_millis(40));
    }
}

#[tokio::test]
async fn all_receipts_of_a_publisher_that_ended_resolve_however_slow_its_reports_are() {
    // Nothing listens on port 1.
    let kafka = KafkaConfig::new("127.0.0.1:1");
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/test"));
    let publisher = publisher.expect("the settings of the publisher are valid");
    let waker = Waker::from(Arc::new(SlowTask));
    let mut pending = Vec::new();
    // Each topic has a report of its own. Together they take longer than the drop.
    for number in 0..50 {
        let record = record(&format!("topic-{number}"), "k", "v");
        let receipt = publisher.enqueue_record(record).await;
        let mut receipt = receipt.expect("the buffer takes the record");
        let polled = receipt.poll_unpin(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        pending.push(receipt);
    }
    drop(publisher);
    for receipt in pending {
        let outcome = tokio::time::timeout(LONG, receipt).await;
        let error = outcome.expect("it resolves").expect_err("never sent");
        assert!(matches!(error, PublishError::Refused { .. }), "{error:?}");
    }
}

#[test]
fn only_listed_codes_are_refusals() {
    let class = |code| match classify(code, 1) {
        Failure::Refused(_) | Failure::NoTopic => "refused",
        Failure::TooLarge(_) => "too large",
        Failure::Unfit(_) | Failure::NoPartition => "unfit",
        Failure::Unknown(_) => "unknown",
        Failure::Fatal(_) => "fatal",
    };
    for (code, expected) in [
        (Code::MessageSizeTooLarge, "too large"),
        (Code::UnknownTopicOrPartition, "refused"),
        (Code::PurgeQueue, "refused"),
        (Code::PolicyViolation, "refused"),
        (Code::InvalidRecord, "unfit"),
        (Code::InvalidTimestamp, "unfit"),
        (Code::UnknownPartition, "unfit"),
        (Code::PurgeInflight, "unknown"),
        (Code::MessageTimedOut, "unknown"),
        (Code::RequestTimedOut, "unknown"),
        (Code::BrokerTransportFailure, "unknown"),
        (Code::NotEnoughReplicasAfterAppend, "unknown"),
        (Code::Unknown, "unknown"),
        (Code::Fatal, "fatal"),
    ] {
        assert_eq!(class(code), expected, "{code}");
    }
}

#[test]
fn settings_that_cannot_work_are_named() {
    let kafka = KafkaConfig::new("localhost:9092");
    let refused = |change: fn(&mut PublisherSettings)| {
        let mut settings = PublisherSettings::new("/test");
        change(&mut settings);
        let refused = Publisher::new(&kafka, settings).err();
        refused.expect("refused").setting
    };
    assert_eq!(refused(|s| s.source.clear()), "source");
    assert_eq!(refused(|s| s.buffer_records_max = 0), "buffer_records_max");
    assert_eq!(refused(|s| s.buffer_bytes_max = 0), "buffer_bytes_max");
    assert_eq!(
        refused(|s| s.buffer_bytes_max = 1 << 32),
        "buffer_bytes_max"
    );
}
