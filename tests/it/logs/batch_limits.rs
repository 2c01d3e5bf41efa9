//! Topics that take smaller batches than clients make: no record is refused for the size of its neighbours, and order per key
//! is kept.

use crate::support::{Case, Log, Member, Step, publish_by};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::publisher::PublishError;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{TestKafka, real_kafka, required, unique};
use std::collections::BTreeMap;
use std::time::Duration;

/// Publishes steps of a few keys without waiting in between, and checks that all are on the log, in the order of their keys.
async fn burst(case: &Case, records: u64, keys: u64) {
    let publisher = case.publisher();
    let step = |number: u64| {
        let key = format!("k{}", number % keys);
        case.step(&publisher, &key, number / keys)
    };
    publish_by(&publisher, (0..records).map(step)).await;
    let mut next: BTreeMap<String, u64> = BTreeMap::new();
    for record in case.read(&case.topic).await {
        let step: Step =
            serde_json::from_slice(record.value.as_deref().expect("a value")).expect("a step");
        let next = next.entry(step.key.clone()).or_default();
        assert_eq!(step.number, *next, "of {}", step.key);
        *next += 1;
    }
    assert!(next.values().all(|next| *next == records / keys));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_fits_into_a_topic_of_any_limit() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    for settings in [
        [("max.message.bytes", "2000")],
        [("max.message.bytes", "20000")],
        [("max.message.bytes", "300000")],
        [("segment.bytes", "1048576")],
    ] {
        let case = Case::named(kafka.config(), unique("it-limit"), 2);
        case.create_topic(&case.topic, 2, &settings).await;
        burst(&case, 4000, 20).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_own_limit_counts_where_the_topic_has_none() {
    let started = TestKafka::start_with(&[("message.max.bytes", "20000")]).await;
    let Some(cluster) = required(started) else {
        return;
    };
    let case = Case::on(&cluster, "it-limit", 2).await;
    burst(&case, 4000, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_record_that_is_too_large_is_refused() {
    let Some(kafka) = real_kafka().await else {
        return;
    };
    let case = Case::named(kafka.config(), unique("it-limit"), 1);
    let settings = [("max.message.bytes", "20000"), ("compression.type", "gzip")];
    case.create_topic(&case.topic, 1, &settings).await;
    let publisher = case.publisher();
    let mut pending = Vec::new();
    for number in 0..300 {
        let value = if number % 100 == 50 {
            noise(30_000)
        } else {
            noise(600)
        };
        let record = case.record(Some("k"), value);
        pending.push(
            publisher
                .enqueue_record(record)
                .await
                .expect("the buffer takes the record"),
        );
    }
    let mut refused = Vec::new();
    for (number, receipt) in pending.into_iter().enumerate() {
        match receipt.await {
            Ok(_) => {}
            Err(PublishError::TooLarge { .. }) => refused.push(number),
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    assert_eq!(refused, [50, 150, 250]);
}

/// The limit is lowered under a publisher that knows the old one.
#[tokio::test(flavor = "multi_thread")]
async fn lowering_the_limit_loses_no_record_that_fits() {
    let Some(case) = Case::new("it-limit", 1).await else {
        return;
    };
    let admin = case.admin().await;
    let publisher = case.publisher();
    let mut published = 0;
    for limit in ["1048588", "20000"] {
        let settings = BTreeMap::from([("max.message.bytes".to_owned(), limit.to_owned())]);
        let altered = admin.alter_topic(&case.topic, &settings).await;
        altered.expect("the broker alters the topic");
        // Every key once: no order to keep.
        let record = |number: u32| case.record(Some(&format!("{limit}-{number}")), noise(690));
        published += publish_by(&publisher, (0..2000).map(record)).await.len();
    }
    assert_eq!(published, 4000);
}

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rand::random()).collect()
}

/// A record of the source that the retry topic has no room for.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_too_large_to_park_is_dead_lettered() {
    let Some(case) = Case::new("it-limit", 1).await else {
        return;
    };
    let retry = retry_topic(&case.group, &case.topic);
    let settings = [("max.message.bytes", "10000"), ("retention.ms", "-1")];
    case.create_topic(&retry, 1, &settings).await;
    let handled = Log::new();
    let router = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            handled.push(record.offset());
            let fails = record.key() != Some(b"well");
            std::future::ready(if fails {
                Outcome::Retry(HandlerError::transient("not now"))
            } else {
                Outcome::Done
            })
        })
    };
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3600)];
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    let large = |key: &str, bytes| OutgoingRecord {
        value: Some(noise(bytes).into()),
        ..case.record(Some(key), "")
    };
    case.publish([
        large("large", 9900),
        large("small", 600),
        // Behind one that is parked, and too large itself.
        large("small", 9900),
        large("well", 100),
    ])
    .await;
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!(report.dead_letters, 2, "{report:?}");
    let letters = case
        .read(&format!("dlq.{}.{}", case.group, case.topic))
        .await;
    let keys: Vec<_> = letters.iter().map(|letter| letter.key.clone()).collect();
    assert_eq!(keys.len(), 2, "{keys:?}");
}
