//! The reader against librdkafka's mock cluster.

use super::*;
use crate::event::{OutgoingRecord, new_id};
use crate::publisher::{Publisher, PublisherSettings};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// Longer than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

struct Cluster {
    mock: MockCluster<'static, DefaultProducerContext>,
    publisher: Publisher,
}

impl Cluster {
    fn new() -> Self {
        let mock = MockCluster::new(1).expect("the mock cluster starts");
        let config = KafkaConfig::new(mock.bootstrap_servers());
        let publisher = Publisher::new(&config, PublisherSettings::new("/test"));
        Self {
            publisher: publisher.expect("publisher"),
            mock,
        }
    }

    fn config(&self) -> KafkaConfig {
        KafkaConfig::new(self.mock.bootstrap_servers())
    }

    fn topic(&self, partitions: i32) -> String {
        let name = format!("reader-{}", new_id());
        self.mock
            .create_topic(&name, partitions, 1)
            .expect("the topic is created");
        name
    }

    async fn publish(&self, topic: &str, partition: i32, values: std::ops::Range<i64>) {
        for value in values {
            let mut record = outgoing(topic, partition);
            record.value = Some(value.to_string().into());
            self.publisher
                .publish_record(record)
                .await
                .expect("the brokers acknowledge the record");
        }
    }

    async fn open(&self, reading: Reading) -> Result<Reader, KafkaError> {
        let config = self.config();
        blocking(move || Reader::open(&config, &reading, LONG)).await
    }
}

fn outgoing(topic: &str, partition: i32) -> OutgoingRecord {
    OutgoingRecord {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: None,
        value: None,
        headers: Headers::new(),
        timestamp_ms: None,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("does not panic")
}

/// All records up to the end.
async fn read(mut reader: Reader) -> Vec<LogRecord> {
    blocking(move || {
        let mut records = Vec::new();
        while !reader.at_end() {
            let record = reader.next(LONG).expect("read");
            records.extend(record);
        }
        records
    })
    .await
}

fn places(records: &[LogRecord]) -> Vec<(&str, i32, i64)> {
    let mut places: Vec<_> = records
        .iter()
        .map(|record| (&*record.topic, record.partition, record.offset))
        .collect();
    places.sort_unstable();
    places
}

fn reading(topic: &str, start: Start) -> Reading {
    Reading {
        start,
        ..Reading::whole([topic])
    }
}

#[tokio::test]
async fn whole_topics_are_read_to_their_end_at_opening() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.topic(2), cluster.topic(2));
    cluster.publish(&a, 0, 0..3).await;
    cluster.publish(&b, 1, 0..2).await;
    let reader = cluster.open(Reading::whole([&a, &b])).await.expect("open");
    let spans: Vec<_> = reader.spans().map(|span| (span.start, span.end)).collect();
    assert_eq!(
        spans,
        [(0, Some(3)), (0, Some(0)), (0, Some(0)), (0, Some(2))]
    );
    cluster.publish(&a, 0, 3..6).await;
    cluster.publish(&a, 1, 0..1).await;

    let mut expected: Vec<_> = (0..3).map(|offset| (a.as_str(), 0, offset)).collect();
    expected.extend((0..2).map(|offset| (b.as_str(), 1, offset)));
    expected.sort_unstable();
    assert_eq!(places(&read(reader).await), expected);
}

#[tokio::test]
async fn a_reading_starts_where_it_is_asked_to() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    cluster.publish(&topic, 0, 0..5).await;
    let check = async |start, expected: std::ops::Range<i64>| {
        let reader = cluster.open(reading(&topic, start)).await.expect("open");
        let offsets: Vec<i64> = read(reader).await.iter().map(|r| r.offset).collect();
        assert_eq!(offsets, expected.collect::<Vec<_>>(), "{start:?}");
    };
    check(Start::Beginning, 0..5).await;
    check(Start::Offset(3), 3..5).await;
    check(Start::Offset(-3), 0..5).await;
    check(Start::Offset(100), 5..5).await;
    check(Start::Last(2), 3..5).await;
    check(Start::Last(100), 0..5).await;
    check(Start::End, 5..5).await;
}

#[tokio::test]
async fn without_an_end_it_follows_the_log() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    cluster.publish(&topic, 0, 0..1).await;
    let follow = Reading {
        end: None,
        ..reading(&topic, Start::End)
    };
    let mut reader = cluster.open(follow).await.expect("open");
    cluster.publish(&topic, 0, 1..2).await;
    let (record, at_end) = blocking(move || (reader.next(LONG), reader.at_end())).await;
    assert_eq!(record.expect("read").expect("a record").offset, 1);
    assert!(!at_end);
}

#[tokio::test]
async fn a_record_is_read_as_it_was_written() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    let mut written = outgoing(&topic, 0);
    written.key = Some(vec![0xff, 0].into());
    written.headers.push("name", Some(&[0xfe]));
    written.headers.push("name", None);
    written.timestamp_ms = Some(1_234);
    let bare = outgoing(&topic, 0);
    for record in [written.clone(), bare] {
        cluster
            .publisher
            .publish_record(record)
            .await
            .expect("the brokers acknowledge the record");
    }
    let reader = cluster.open(Reading::whole([&topic])).await.expect("open");
    let [full, bare] = read(reader).await.try_into().expect("two records");
    assert_eq!(full.key.as_deref(), written.key.as_deref());
    assert_eq!((full.value, full.headers), (None, written.headers));
    assert_eq!(
        (full.timestamp_kind, full.timestamp_ms),
        (TimestampKind::Create, Some(1_234))
    );
    assert_eq!((bare.key, bare.value), (None, None));
    assert!(bare.headers.is_empty());
}

#[tokio::test]
async fn only_the_named_partitions_are_read() {
    let cluster = Cluster::new();
    let topic = cluster.topic(3);
    for partition in 0..3 {
        cluster.publish(&topic, partition, 0..2).await;
    }
    let named = |partitions: &[i32]| Reading {
        partitions: partitions.to_vec(),
        ..Reading::whole([&topic])
    };
    let reader = cluster.open(named(&[1, 1])).await.expect("open");
    let expected = [(topic.as_str(), 1, 0), (topic.as_str(), 1, 1)];
    assert_eq!(places(&read(reader).await), expected);
    let missing = cluster.open(named(&[3])).await.expect_err("refused");
    assert!(
        matches!(missing, KafkaError::UnknownPartition { .. }),
        "{missing}"
    );
}

#[tokio::test]
async fn a_topic_that_is_named_twice_is_read_once() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    cluster.publish(&topic, 0, 0..2).await;
    let twice = Reading::whole([&topic, &topic]);
    let reader = cluster.open(twice).await.expect("open");
    let expected = [(topic.as_str(), 0, 0), (topic.as_str(), 0, 1)];
    assert_eq!(places(&read(reader).await), expected);
}

#[tokio::test]
async fn a_name_that_no_topic_can_have_is_unknown() {
    let cluster = Cluster::new();
    for name in ["", "a/b", "nul\0", "no-such-topic"] {
        let refused = cluster.open(Reading::whole([name])).await.err();
        assert!(
            matches!(&refused, Some(KafkaError::UnknownTopic { topic }) if topic == name),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn an_outage_is_reported_and_outlived() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    let follow = Reading {
        end: None,
        ..Reading::whole([&topic])
    };
    let config = cluster.config();
    let mut reader = blocking(move || Reader::open(&config, &follow, Duration::from_secs(1)))
        .await
        .expect("open");
    cluster.mock.broker_down(1).expect("mock");
    let (mut reader, outage) = blocking(move || {
        let outage = reader.next(LONG);
        (reader, outage)
    })
    .await;
    let outage = outage.expect_err("it is told");
    assert!(matches!(outage, KafkaError::Unreachable { .. }), "{outage}");

    cluster.mock.broker_up(1).expect("mock");
    cluster.publish(&topic, 0, 0..1).await;
    let record = blocking(move || {
        loop {
            match reader.next(LONG) {
                Ok(record) => break record,
                Err(KafkaError::Unreachable { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    assert_eq!(record.expect("a record").offset, 0);
}

#[tokio::test]
async fn a_follower_knows_its_catch_up_and_misses_nothing_later() {
    let cluster = Cluster::new();
    let (full, empty) = (cluster.topic(1), cluster.topic(1));
    cluster.publish(&full, 0, 0..10).await;
    let config = cluster.config();
    let topics = [full.clone(), empty];
    let mut reader = blocking(move || Reader::follow(&config, topics, LONG).expect("open")).await;
    // Records after the opening do not count for catching up, but are returned.
    cluster.publish(&full, 0, 10..20).await;
    blocking(move || {
        let mut read = 0;
        let mut behind_at = 0;
        while read < 20 {
            if !reader.has_caught_up() {
                behind_at = read;
            }
            let record = reader.next(LONG).expect("read").expect("a record");
            assert_eq!(record.value.as_deref(), Some(read.to_string().as_bytes()));
            read += 1;
        }
        assert!(reader.has_caught_up() && !reader.at_end());
        assert!((9..20).contains(&behind_at), "{behind_at}");
        assert!(reader.next(Duration::ZERO).expect("read").is_none());
    })
    .await;
}

#[tokio::test]
async fn a_follower_of_nothing_has_caught_up_at_once() {
    let cluster = Cluster::new();
    let (topic, config) = (cluster.topic(1), cluster.config());
    let reader = blocking(move || Reader::follow(&config, [topic], LONG).expect("open")).await;
    assert!(reader.has_caught_up());
}

#[tokio::test]
async fn a_log_that_ends_too_early_does_not_end_a_reading() {
    let cluster = Cluster::new();
    let topic = cluster.topic(1);
    cluster.publish(&topic, 0, 0..3).await;
    let span = Span {
        topic: topic.as_str().into(),
        partition: 0,
        start: 0,
        end: Some(5),
    };
    let config = cluster.config();
    let opened = move || Reader::of_spans(&config, vec![span], Duration::from_millis(500));
    let mut reader = blocking(opened).await.expect("open");
    let mut reader = blocking(move || {
        for offset in 0..3 {
            let record = reader.next(LONG).expect("read").expect("a record");
            assert_eq!(record.offset, offset);
        }
        for _ in 0..2 {
            let waited = reader.next(LONG);
            assert!(
                matches!(waited, Err(KafkaError::Timeout { .. })),
                "{waited:?}"
            );
            assert!(!reader.at_end());
        }
        reader
    })
    .await;
    cluster.publish(&topic, 0, 3..6).await;
    let offsets = blocking(move || {
        let mut offsets = Vec::new();
        while !reader.at_end() {
            match reader.next(LONG) {
                Ok(record) => offsets.extend(record.map(|record| record.offset)),
                Err(KafkaError::Timeout { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        offsets
    })
    .await;
    assert_eq!(offsets, [3, 4]);
}
