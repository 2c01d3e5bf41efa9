//! Which records are found, in memory and on the mock cluster.

use super::*;
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{KafkaKind, TestKafka};

const TOPIC: &str = "shop.orders";
const DEAD_LETTERS: &str = "dlq.payments.shop.orders";
const WITHIN: Duration = Duration::from_secs(30);

/// An event in binary mode.
const EVENT: [(&str, &str); 4] = [
    ("ce_specversion", "1.0"),
    ("ce_id", "o-1"),
    ("ce_source", "/web"),
    ("ce_type", "shop.order-placed.v1"),
];

/// A dead letter of the group payments for shop.orders/3@90, without its stage.
const DEAD_LETTER: [(&str, &str); 7] = [
    ("__dlq.errors.topic", TOPIC),
    ("__dlq.errors.partition", "3"),
    ("__dlq.errors.offset", "90"),
    ("__dlq.errors.group", "payments"),
    ("__dlq.errors.delivery.count", "4"),
    ("__dlq.errors.message", "no such customer"),
    ("evenkeel.dlq.error.class", "permanent"),
];

fn place(group: &str, topic: &str, partition: i32, offset: i64) -> DeadLetterPlace {
    DeadLetterPlace {
        topic: DEAD_LETTERS.to_owned(),
        group: group.to_owned(),
        origin: RecordPosition {
            topic: topic.to_owned(),
            partition,
            offset,
        },
        since: None,
    }
}

fn record(headers: &[(&str, &str)], value: Option<&str>) -> LogRecord {
    let mut packed = Headers::new();
    for (name, value) in headers {
        packed.push(name, Some(value.as_bytes()));
    }
    LogRecord {
        topic: "shop.orders".into(),
        partition: 3,
        offset: 17,
        timestamp_kind: TimestampKind::Create,
        timestamp_ms: Some(5),
        key: None,
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: packed,
    }
}

fn wanted(id: &str, source: Option<&str>) -> Wanted {
    Wanted {
        id: id.to_owned(),
        source: source.map(str::to_owned),
        visible: None,
    }
}

#[test]
fn an_event_is_recognised_in_both_content_modes() {
    let structured = r#"{"specversion":"1.0","id":"o-1","source":"/web",
        "type":"shop.order-placed.v1","data":{}}"#;
    let mode = [("content-type", "application/cloudevents+json")];
    for record in [record(&EVENT, Some("{}")), record(&mode, Some(structured))] {
        for (id, source, is_hit) in [
            ("o-1", None, true),
            ("o-1", Some("/web"), true),
            ("o-1", Some("/other"), false),
            ("o-2", None, false),
        ] {
            let found = hit(&record, &wanted(id, source));
            assert_eq!(found.is_some(), is_hit, "{id} {source:?}");
            if let Some(found) = found {
                assert_eq!(
                    (&*found.source, &*found.ty),
                    ("/web", "shop.order-placed.v1")
                );
                assert_eq!(found.at.to_string(), "shop.orders/3@17");
            }
        }
    }
    assert_eq!(hit(&record(&[], Some("noise")), &wanted("o-1", None)), None);
    assert_eq!(
        hit(&record(&[("ce_id", "o-1")], None), &wanted("o-1", None)),
        None
    );
}

#[test]
fn only_a_dead_letter_of_this_record_and_group_counts() {
    let handler = ("evenkeel.dlq.error.stage", "handler");
    let skipped = ("evenkeel.dlq.error.stage", "skipped");
    let headers = [&DEAD_LETTER[..], &[handler]].concat();
    let own = place("payments", "shop.orders", 3, 90);
    let found = dead_letter_of(&record(&headers, None), &own).expect("it is this one");
    assert_eq!(found.message.as_deref(), Some("no such customer"));
    assert_eq!((found.attempts, found.skipped_by), (Some(4), None));
    for other in [
        place("stock", "shop.orders", 3, 90),
        place("payments", "shop.stock", 3, 90),
        place("payments", "shop.orders", 2, 90),
        place("payments", "shop.orders", 3, 91),
    ] {
        assert_eq!(dead_letter_of(&record(&headers, None), &other), None);
    }
    let headers = [&DEAD_LETTER[..], &[skipped, (SKIPPED_BY, "ada")]].concat();
    let skipped = dead_letter_of(&record(&headers, None), &own).expect("it is this one");
    assert_eq!(skipped.skipped_by.as_deref(), Some("ada"));
}

#[test]
fn the_latest_records_before_a_time_are_searched() {
    let bounds = |partition, at, first| Span {
        topic: "shop.orders".into(),
        partition,
        start: at,
        end: Some(first),
    };
    let found = |records_max| {
        let bounds = vec![bounds(0, 100, 90), bounds(1, 1_000, 0), bounds(2, 5, 5)];
        let (spans, are_all) = latest_before(bounds, records_max);
        let spans = spans.into_iter().map(|span| (span.start, span.end));
        (spans.collect::<Vec<_>>(), are_all)
    };
    let part = vec![(90, Some(100)), (980, Some(1_000)), (5, Some(5))];
    assert_eq!(found(60), (part, false));
    let all = vec![(90, Some(100)), (0, Some(1_000)), (5, Some(5))];
    assert_eq!(found(3_000), (all, true));
}

/// Publishes a record with these headers.
async fn publish(kafka: &KafkaConfig, topic: &str, headers: &[(&str, &str)]) {
    let publisher = Publisher::new(kafka, PublisherSettings::new("/test"));
    let publisher = publisher.expect("the settings are valid");
    let published = publisher.publish_record(OutgoingRecord {
        topic: topic.to_owned(),
        partition: None,
        key: None,
        value: Some("{}".into()),
        headers: record(headers, None).headers,
        timestamp_ms: None,
    });
    published.await.expect("the mock accepts it");
}

/// The mock cluster resolves every time to the end of a partition: all its records are older.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_its_publisher_says_is_found() {
    let kafka = TestKafka::start(KafkaKind::Mock).await;
    let kafka = kafka.expect("the mock needs nothing");
    for (topic, headers) in [(TOPIC, &EVENT[..]), (DEAD_LETTERS, &DEAD_LETTER)] {
        let created = kafka.create_topic(topic, 2).await;
        created.expect("the topic is new");
        publish(&kafka.config(), topic, headers).await;
    }
    let config = kafka.config();
    let check = move |since, is_found: bool| {
        let limits = SearchLimits::new(1_000, WITHIN);
        let topics = [TOPIC.to_owned()];
        let searched = event(&config, &topics, since, &wanted("o-1", None), limits);
        let searched = searched.expect("the mock answers");
        assert_eq!(searched.hits.len(), usize::from(is_found), "{searched:?}");
        assert!(searched.is_complete, "{searched:?}");
        let own = DeadLetterPlace {
            since: Some(since),
            ..place("payments", TOPIC, 3, 90)
        };
        let search = dead_letter(&config, &own, SearchLimits::new(1_000, WITHIN));
        let search = search.expect("the mock answers");
        let was_found = matches!(&search, DeadLetterSearch::Found(found) if found.is_last);
        assert_eq!(was_found, is_found, "{search:?}");
        assert_eq!(search == DeadLetterSearch::Nothing, !is_found);
    };
    let config = kafka.config();
    let earlier = move |since, records_max| {
        let limits = SearchLimits::new(records_max, WITHIN);
        let topics = [TOPIC.to_owned()];
        let searched = event(&config, &topics, since, &wanted("o-2", None), limits);
        let searched = searched.expect("the mock answers");
        assert!(searched.is_complete, "from its start on: {searched:?}");
        searched.earlier
    };
    let checks = tokio::task::spawn_blocking(move || {
        check(Since::Claimed(1), true);
        check(Since::Known(1), false);
        for (since, records_max, expected) in [
            (Since::Known(1), 1_000, Earlier::RuledOut),
            (Since::Claimed(1), 1_000, Earlier::RuledOut),
            // None for each of the two partitions.
            (Since::Claimed(1), 1, Earlier::Limited),
            (Since::Probable(1), 1_000, Earlier::Unread),
        ] {
            assert_eq!(earlier(since, records_max), expected, "{since:?}");
        }
    });
    checks.await.expect("the searches end as they should");
}
