//! The unsafe module against librdkafka's mock cluster. CI also runs these tests under a memory
//! checker.

use super::raw::error_code;
use super::*;
use crate::event::{Headers, OutgoingRecord};
use crate::kafka::KafkaConfig;
use crate::publisher::{Publisher, PublisherSettings};
use rdkafka::consumer::DefaultConsumerContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TOPIC: &str = "queue";
/// Longer than any step takes, even if it is twenty times slower.
const LONG: Duration = Duration::from_secs(60);

type Header = (Vec<u8>, Option<Vec<u8>>);

/// Names and values of any bytes, repeated, empty and absent.
fn headers() -> Vec<Header> {
    let header = |name: &[u8], value: Option<&[u8]>| (name.to_vec(), value.map(<[u8]>::to_vec));
    vec![
        header(b"a", Some(b"1")),
        header(b"a", Some(b"2")),
        header(b"\xff\xfe", Some(b"\x00\xff")),
        header(b"empty", Some(b"")),
        header(b"absent", None),
        header(b"nul\0in\0it", Some(b"1")),
        header(b"\0", None),
    ]
}

fn record(number: usize) -> OutgoingRecord {
    let mut record = OutgoingRecord {
        topic: TOPIC.to_owned(),
        partition: Some(0),
        key: number
            .is_multiple_of(2)
            .then(|| format!("k{number}").into()),
        value: (number > 0).then(|| vec![number as u8; number * 100].into()),
        headers: Headers::new(),
        timestamp_ms: Some(1_700_000_000_000 + number as i64),
    };
    for (name, value) in headers() {
        record.headers.push_bytes(&name, value.as_deref());
    }
    record
}

/// A cluster whose topic has this many records.
async fn cluster(records: usize) -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    cluster
        .create_topic(TOPIC, 1, 1)
        .expect("the topic is created");
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/test"))
        .expect("the settings of the publisher are valid");
    for number in 0..records {
        let published = publisher.publish_record(record(number)).await;
        published.expect("published");
    }
    cluster
}

/// A consumer of the topic's partition, forwarded to a queue of its own.
fn forwarded(
    cluster: &MockCluster<'static, DefaultProducerContext>,
) -> ForwardedQueue<DefaultConsumerContext> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .set("group.id", "queue")
        .create()
        .expect("consumer");
    let queue = ForwardedQueue::new(Arc::new(consumer));
    forward(&queue.consumer, TOPIC, 0, queue.target()).expect("forwarded");
    let mut partitions = TopicPartitionList::new();
    partitions
        .add_partition_offset(TOPIC, 0, Offset::Beginning)
        .expect("a partition");
    queue.consumer.assign(&partitions).expect("assigned");
    queue
}

/// Takes messages until `wanted` records were received, `limit` at a time, and passes each to
/// `see`.
fn take_all(
    queue: &ForwardedQueue<DefaultConsumerContext>,
    wanted: usize,
    limit: usize,
    mut see: impl FnMut(Message<'_>),
) {
    let mut messages = Messages::with_capacity(limit);
    let deadline = std::time::Instant::now() + LONG;
    let mut seen = 0;
    while seen < wanted {
        assert!(std::time::Instant::now() < deadline, "{seen} of {wanted}");
        queue.take(&mut messages, limit, Duration::from_millis(100));
        assert!(messages.len() <= limit);
        for message in messages.iter().filter(|message| message.error().is_none()) {
            see(message);
            seen += 1;
        }
    }
}

fn collected(headers: &MessageHeaders) -> Vec<Header> {
    headers
        .iter()
        .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
        .collect()
}

#[tokio::test]
async fn a_message_reads_back_as_it_was_produced() {
    let cluster = cluster(5).await;
    let queue = forwarded(&cluster);
    let mut number = 0;
    take_all(&queue, 5, 3, |message| {
        let expected = record(number);
        assert_eq!(message.topic(), Some(TOPIC));
        assert_eq!((message.partition(), message.offset()), (0, number as i64));
        assert_eq!(message.key(), expected.key.as_deref());
        assert_eq!(message.value(), expected.value.as_deref());
        assert_eq!(Some(message.timestamp_ms()), expected.timestamp_ms);
        assert_eq!(collected(&message.take_headers()), headers());
        number += 1;
    });
}

#[tokio::test]
async fn headers_taken_are_ours_and_can_be_taken_again() {
    let cluster = cluster(3).await;
    let queue = forwarded(&cluster);
    let mut kept = Vec::new();
    take_all(&queue, 3, 1, |message| {
        kept.push(message.take_headers());
        assert_eq!(collected(&message.take_headers()), headers());
    });
    // Their messages, the queue and the client no longer exist.
    drop(queue);
    assert!(kept.iter().all(|kept| collected(kept) == headers()));
    assert!(collected(&MessageHeaders::NONE).is_empty());
}

#[tokio::test]
async fn unread_messages_are_freed_as_well() {
    let cluster = cluster(50).await;
    let queue = forwarded(&cluster);
    let mut messages = Messages::with_capacity(8);
    let deadline = std::time::Instant::now() + LONG;
    while messages.len() == 0 {
        assert!(std::time::Instant::now() < deadline);
        queue.take(&mut messages, usize::MAX, Duration::from_millis(100));
    }
    assert!(messages.len() <= 8, "as many as there is room for");
    queue.take(&mut messages, 0, Duration::ZERO);
    assert_eq!(messages.len(), 0);
    unforward(&queue.consumer, TOPIC, 0).expect("no more forwarded");
    // The rest is still in the client's queues.
}

#[tokio::test]
async fn messages_fetched_before_a_seek_do_not_come_after_it() {
    let cluster = cluster(50).await;
    let queue = forwarded(&cluster);
    let mut first = Vec::new();
    take_all(&queue, 3, 1, |message| first.push(message.offset()));
    assert_eq!(first, [0, 1, 2]);
    // The other messages are on our queue by now, and stay there.
    let (consumer, mut partitions) = (&queue.consumer, TopicPartitionList::new());
    partitions.add_partition(TOPIC, 0);
    unforward(consumer, TOPIC, 0).expect("no more forwarded");
    consumer.pause(&partitions).expect("paused");
    let mut messages = Messages::with_capacity(64);
    queue.take(&mut messages, 64, Duration::from_millis(500));
    assert_eq!(messages.len(), 0, "what is outdated is dropped");

    let mut position = TopicPartitionList::new();
    let added = position.add_partition_offset(TOPIC, 0, Offset::Offset(1));
    added.expect("a position");
    let sought = consumer.seek_partitions(position, LONG).expect("sought");
    let elements = sought.elements();
    elements[0].error().expect("sought");
    forward(consumer, TOPIC, 0, queue.target()).expect("forwarded");
    consumer.resume(&partitions).expect("resumed");
    let mut again = Vec::new();
    take_all(&queue, 49, 8, |message| again.push(message.offset()));
    assert_eq!(again, (1..50).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_client_outside_of_a_group_has_no_member_id() {
    let cluster = cluster(0).await;
    let queue = forwarded(&cluster);
    assert_eq!(member_id(&queue.consumer), None);
}

#[tokio::test]
async fn committed_metadata_and_watermarks_are_read() {
    let cluster = cluster(4).await;
    let queue = forwarded(&cluster);
    take_all(&queue, 4, 8, |_| {});
    assert_eq!(cached_watermarks(&queue.consumer, TOPIC, 0), Some((0, 4)));
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition(TOPIC, 0);
    let before = committed(&queue.consumer, &partitions, LONG).expect("committed");
    assert_eq!(before[0].offset, None);

    let mut element = partitions.find_partition(TOPIC, 0).expect("the partition");
    element.set_offset(Offset::Offset(3)).expect("an offset");
    element.set_metadata("above=1");
    let sync = rdkafka::consumer::CommitMode::Sync;
    queue
        .consumer
        .commit(&partitions, sync)
        .expect("the offsets are committed");
    let after = committed(&queue.consumer, &partitions, LONG).expect("committed");
    let expected = Committed {
        leader_epoch: Some(0),
        topic: TOPIC.to_owned(),
        partition: 0,
        offset: Some(3),
        metadata: b"above=1".to_vec(),
        error: None,
    };
    assert_eq!(after, [expected]);
}

/// A client of this group.
fn member_of(
    cluster: &MockCluster<'static, DefaultProducerContext>,
    group: &str,
) -> BaseConsumer<DefaultConsumerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers());
    if !group.is_empty() {
        config.set("group.id", group);
    }
    config.create().expect("consumer")
}

#[tokio::test]
async fn offsets_of_any_group_are_read_with_their_metadata() {
    let cluster = cluster(4).await;
    for (group, next, metadata) in [("one", 3, "above=1"), ("two", 4, "above=2")] {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(TOPIC, 0);
        element.set_offset(Offset::Offset(next)).expect("an offset");
        element.set_metadata(metadata);
        let sync = rdkafka::consumer::CommitMode::Sync;
        let committed = member_of(&cluster, group).commit(&list, sync);
        committed.expect("the offsets are committed");
    }
    let mut list = TopicPartitionList::new();
    list.add_partition(TOPIC, 0);
    let client = member_of(&cluster, "other");
    let read = |group| groups::committed_by(&client, group, &list, LONG).expect("committed");
    for (group, next, metadata) in [("one", 3, "above=1"), ("two", 4, "above=2")] {
        let expected = Committed {
            leader_epoch: Some(0),
            topic: TOPIC.to_owned(),
            partition: 0,
            offset: Some(next),
            metadata: metadata.into(),
            error: None,
        };
        assert_eq!(read(group), [expected]);
    }
    assert_eq!(read("three")[0].offset, None);
    let nothing = TopicPartitionList::new();
    assert_eq!(
        groups::committed_by(&client, "one", &nothing, LONG),
        Ok(Vec::new())
    );
}

#[test]
fn an_answer_without_a_partition_is_incomplete() {
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition(TOPIC, 0);
    wanted.add_partition(TOPIC, 1);
    let found = |topic: &str, partition| Committed {
        topic: topic.to_owned(),
        partition,
        ..Committed::default()
    };
    let both = [found(TOPIC, 1), found(TOPIC, 0)];
    assert!(groups::has_all(&both, &wanted));
    assert!(!groups::has_all(&both[..1], &wanted));
    let other = [found(TOPIC, 0), found("other", 1)];
    assert!(!groups::has_all(&other, &wanted));
    assert!(!groups::has_all(&[], &wanted));
}

#[tokio::test]
async fn a_moved_coordinator_is_an_error_and_not_the_end() {
    let cluster = cluster(0).await;
    let mut list = TopicPartitionList::new();
    list.add_partition(TOPIC, 0);
    let without_group = member_of(&cluster, "");
    assert_eq!(
        groups::committed_by(&without_group, "one", &list, LONG),
        Err(RDKafkaErrorCode::UnknownGroup)
    );
    cluster.request_errors(
        rdkafka::types::RDKafkaApiKey::OffsetFetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR],
    );
    let client = member_of(&cluster, "other");
    assert_eq!(
        groups::committed_by(&client, "one", &list, LONG),
        Err(RDKafkaErrorCode::NotCoordinator)
    );
}

#[test]
fn an_unknown_error_code_is_an_unknown_error() {
    assert_eq!(error_code(0), None);
    assert_eq!(
        error_code(3),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(error_code(-191), Some(RDKafkaErrorCode::PartitionEOF));
    for unknown in [-2, 119, 128, 12_345, i32::MIN] {
        assert_eq!(
            error_code(unknown),
            Some(RDKafkaErrorCode::Unknown),
            "{unknown}"
        );
    }
}
