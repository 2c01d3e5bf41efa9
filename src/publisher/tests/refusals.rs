//! Batches that the brokers refuse as a whole.

use super::*;
use crate::kafka::native::MessageHeaders;
use crate::publisher::delivery::{Delivery, Resend, Topic};
use crate::publisher::error::Failure;
use crate::publisher::route::{SendMode, TopicRoute};
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode as Code, RDKafkaRespErr};
use std::sync::Arc;

/// Enqueues records of these keys so that they share batches, and awaits their receipts.
async fn published(
    publisher: &Publisher,
    topic: &str,
    keys: &[String],
) -> Vec<Result<Receipt, PublishError>> {
    let mut pending = Vec::new();
    for key in keys {
        let record = record(topic, key, "v");
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let mut outcomes = Vec::new();
    for receipt in pending {
        outcomes.push(receipt.await);
    }
    outcomes
}

#[tokio::test]
async fn a_refused_batch_is_sent_record_by_record_in_order() {
    for error in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_RECORD,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
    ] {
        let cluster = cluster();
        let topic = topic(&cluster, 1);
        let publisher = publisher(&cluster, &["linger.ms=100"]);
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        let keys: Vec<String> = (0..40).map(|n| format!("k{}", n % 4)).collect();
        let outcomes = published(&publisher, &topic, &keys).await;
        let offsets = outcomes.into_iter().map(|outcome| {
            let receipt = outcome.unwrap_or_else(|error| panic!("{error}"));
            receipt.offset
        });
        let offsets: Vec<i64> = offsets.collect();
        for key in 0..4 {
            let of_key: Vec<i64> = offsets.iter().copied().skip(key).step_by(4).collect();
            assert!(of_key.is_sorted(), "{error:?}: {of_key:?}");
        }
        publisher
            .flush(Duration::ZERO)
            .await
            .expect("nothing pending");
    }
}

#[tokio::test]
async fn a_record_that_is_refused_alone_too_is_too_large() {
    let cluster = cluster();
    let topic = topic(&cluster, 1);
    let publisher = publisher(&cluster, &["linger.ms=100"]);
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large; 2]);
    let keys = ["a", "b", "c"].map(str::to_owned);
    let outcomes = published(&publisher, &topic, &keys).await;
    let [first, second, third] = outcomes.try_into().expect("three");
    assert!(
        matches!(first, Err(PublishError::TooLarge { .. })),
        "{first:?}"
    );
    second.expect("published alone");
    third.expect("published alone");
    // The topic continues.
    let next = publisher.publish_record(record(&topic, "k", "v")).await;
    next.expect("published");
}

#[tokio::test]
async fn a_record_that_is_sent_again_is_the_same() {
    let cluster = cluster();
    let topic = topic(&cluster, 3);
    let publisher = publisher(&cluster, &[]);
    let too_large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Produce, &[too_large]);
    let mut sent = record(&topic, "k", "v");
    sent.timestamp_ms = Some(1_700_000_000_123);
    sent.headers.push("twice", Some(b"1"));
    sent.headers.push("twice", None);
    let receipt = publisher.publish_record(sent.clone()).await;
    let read = read_back(&cluster, &receipt.expect("published alone"));
    assert_eq!(read.key.as_deref(), sent.key.as_deref());
    assert_eq!(read.value.as_deref(), sent.value.as_deref());
    assert_eq!(read.timestamp_ms, sent.timestamp_ms);
    assert!(read.headers == sent.headers, "{:?}", read.headers);
}

fn refused(topic: &Arc<Topic>, key: Option<&str>, sequence: u64) -> Resend {
    let delivery = Delivery::new(Arc::clone(topic), 1, 1, None, sequence);
    Resend {
        delivery: Arc::new(delivery),
        partition: 0,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: None,
        headers: MessageHeaders::NONE,
        code: Code::MessageSizeTooLarge,
    }
}

#[test]
fn a_record_whose_key_was_overtaken_is_not_sent_again() {
    let topic = Arc::new(Topic::new("topic", false));
    let route = &topic.route;
    for _ in 0..6 {
        assert_eq!(route.enter(), Some(SendMode::Batched));
    }
    let is_last = |records| route.leave(records);
    for (key, sequence) in [(Some("b"), 2), (Some("a"), 1), (None, 0)] {
        route.refuse(refused(&topic, key, sequence), true);
        assert!(route.is_closed());
        assert!(!is_last(1));
    }
    assert_eq!(route.enter(), None, "nothing is handed over meanwhile");
    for (key, sequence) in [(Some("a"), 3), (Some("b"), 1), (None, 9)] {
        route.record_written(0, key.map(str::as_bytes), sequence);
    }
    assert!(route.take_refused().is_empty(), "some are in flight");
    assert!(!is_last(1) && is_last(2));
    let judged = route.take_refused();
    let judged: Vec<(u64, bool)> = judged
        .iter()
        .map(|(record, is_overtaken)| (record.delivery.sequence, *is_overtaken))
        .collect();
    assert_eq!(judged, [(0, false), (1, true), (2, false)]);
    assert!(matches!(
        super::super::route::overtaken_failure(),
        Failure::Refused(_)
    ));
    assert!(!is_last(2) && is_last(1));
    assert!(route.take_refused().is_empty());
    assert_eq!(route.enter(), Some(SendMode::Batched), "it is open again");
}

#[tokio::test]
async fn several_records_wait_for_what_the_topic_takes() {
    let route: TopicRoute<Resend> = TopicRoute::new(true);
    assert_eq!(route.enter(), Some(SendMode::Batched), "the first is alone");
    assert_eq!(route.enter(), None);
    let queued = route.queue().await;
    assert_eq!(queued.enter().await, None, "the limit is to be asked for");
    assert!(route.set_batch_limit(Some(SendMode::Smaller(16_384))));
    assert!(route.take_refused().is_empty());
    let entered = tokio::time::timeout(Duration::from_millis(20), queued.enter()).await;
    assert!(entered.is_err(), "the first is in flight on another client");
    assert!(route.leave(1));
    assert!(route.take_refused().is_empty());
    assert_eq!(queued.enter().await, Some(SendMode::Smaller(16_384)));
    drop(queued);
    assert_eq!(route.enter(), Some(SendMode::Smaller(16_384)));
}
