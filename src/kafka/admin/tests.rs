//! The admin against librdkafka's mock cluster, and against an unused port.

use super::*;
use crate::event::new_id;
use crate::kafka::native::queued_events;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

/// Longer than any step takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

struct Fixture {
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: KafkaConfig,
    admin: Admin,
}

async fn fixture() -> Fixture {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let config = KafkaConfig::new(cluster.bootstrap_servers());
    let admin = Admin::connect(&config, LONG)
        .await
        .expect("the admin client connects");
    Fixture {
        cluster,
        config,
        admin,
    }
}

impl Fixture {
    fn topic(&self, partitions: i32) -> String {
        let name = format!("topic-{}", new_id());
        self.cluster
            .create_topic(&name, partitions, 1)
            .expect("the topic is created");
        name
    }

    /// Writes records with these timestamps to a partition.
    fn write(&self, topic: &str, partition: i32, timestamps_ms: &[i64]) {
        let producer: BaseProducer = self
            .config
            .producer()
            .expect("settings")
            .create()
            .expect("producer");
        for timestamp_ms in timestamps_ms {
            let record = BaseRecord::<(), str>::to(topic)
                .partition(partition)
                .payload("v")
                .timestamp(*timestamp_ms);
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("sent");
        }
        producer.flush(LONG).expect("every record is sent in time");
    }

    fn commit(&self, group: &str, topic: &str, partition: i32, next: i64) {
        let consumer: BaseConsumer = self
            .config
            .consumer(group)
            .expect("settings")
            .create()
            .expect("consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(next))
            .expect("offset");
        consumer
            .commit(&list, CommitMode::Sync)
            .expect("the offsets are committed");
    }
}

#[tokio::test]
async fn topics_are_listed_counted_and_described() {
    let fixture = fixture().await;
    let (one, three) = (fixture.topic(1), fixture.topic(3));
    fixture.write(&three, 2, &[1, 2]);
    let listed = fixture
        .admin
        .topics()
        .await
        .expect("the cluster lists its topics");
    let mut expected = [one.clone(), three.clone()];
    expected.sort();
    assert_eq!(listed, expected);

    let asked = [three.clone(), "absent".to_owned()];
    let counts = fixture.admin.partition_counts(&asked).await;
    assert_eq!(
        counts.expect("counted"),
        BTreeMap::from([(three.clone(), 3)])
    );

    let described = fixture
        .admin
        .describe_topic(&three)
        .await
        .expect("described");
    let offsets: Vec<_> = described
        .partitions
        .iter()
        .map(|partition| (partition.partition, partition.low, partition.high))
        .collect();
    assert_eq!(offsets, [(0, 0, 0), (1, 0, 0), (2, 0, 2)]);
    assert_eq!(described.partitions[0].leader, 1);
    assert!(described.config.is_empty(), "the mock cluster tells none");
}

#[tokio::test]
async fn a_missing_topic_is_named_and_not_created() {
    let fixture = fixture().await;
    let absent = format!("absent-{}", new_id());
    for name in [absent.as_str(), "", "a/b", &"x".repeat(600)] {
        match fixture.admin.describe_topic(name).await {
            Err(KafkaError::UnknownTopic { topic }) => assert_eq!(topic, name),
            other => panic!("{other:?}"),
        }
    }
    let topics = std::slice::from_ref(&absent);
    let lag = fixture.admin.group_lag("group", topics).await;
    assert!(matches!(lag, Err(KafkaError::UnknownTopic { topic }) if topic == absent));
    assert!(
        fixture
            .admin
            .topics()
            .await
            .expect("the cluster lists its topics")
            .is_empty()
    );
}

#[tokio::test]
async fn requests_unknown_to_a_broker_are_reported_as_unsupported() {
    let fixture = fixture().await;
    let topic = NewTopic {
        name: "new".to_owned(),
        partitions: 1,
        replication: 1,
        config: BTreeMap::new(),
    };
    let created = fixture.admin.create_topics(&[topic]).await;
    let error = created.expect_err("no CreateTopics");
    assert!(matches!(error, KafkaError::Unsupported { .. }), "{error:?}");
    let altered = fixture.admin.alter_topic("new", &BTreeMap::new()).await;
    let error = altered.expect_err("no AlterConfigs");
    assert!(matches!(error, KafkaError::Unsupported { .. }), "{error:?}");
    let before = BTreeMap::from([(0, 1)]);
    let deleted = fixture.admin.delete_records("new", &before).await;
    let error = deleted.expect_err("no DeleteRecords");
    assert!(matches!(error, KafkaError::Unsupported { .. }), "{error:?}");
    let error = fixture.admin.groups().await.expect_err("no ListGroups");
    assert!(matches!(error, KafkaError::Unsupported { .. }), "{error:?}");
    let nothing = fixture
        .admin
        .create_topics(&[])
        .await
        .expect("nothing to do");
    assert_eq!(nothing, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn lag_counts_from_the_committed_offset_with_record_age() {
    let fixture = fixture().await;
    let topic = fixture.topic(3);
    let other = fixture.topic(1);
    let group = format!("group-{}", new_id());
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let hour_ms = 3_600_000;
    // Partition 0: one of three settled; 1: all settled; 2: nothing ever committed.
    let old = now_ms - 3 * hour_ms;
    fixture.write(&topic, 0, &[now_ms - 9 * hour_ms, old, now_ms]);
    fixture.write(&topic, 1, &[old]);
    fixture.write(&topic, 2, &[now_ms - 2 * hour_ms]);
    fixture.write(&other, 0, &[old]);
    fixture.commit(&group, &topic, 0, 1);
    fixture.commit(&group, &topic, 1, 1);

    let lags = fixture
        .admin
        .group_lag(&group, &[])
        .await
        .expect("the cluster reports the lag");
    let numbers: Vec<_> = lags
        .iter()
        .map(|lag| (lag.partition, lag.committed, lag.low, lag.high, lag.lag))
        .collect();
    assert_eq!(
        numbers,
        [
            (0, Some(1), 0, 3, 2),
            (1, Some(1), 0, 1, 0),
            (2, None, 0, 1, 1)
        ]
    );
    assert!(lags.iter().all(|lag| lag.topic == topic), "{lags:?}");
    let hours: Vec<_> = lags
        .iter()
        .map(|lag| lag.age_ms.map(|age| age / hour_ms))
        .collect();
    assert_eq!(hours, [Some(3), None, Some(2)]);

    let asked = fixture
        .admin
        .group_lag(&group, std::slice::from_ref(&other))
        .await;
    assert_eq!(asked.expect("lag")[0].lag, 1);
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_no_negative_lag() {
    let fixture = fixture().await;
    let topic = fixture.topic(1);
    let group = format!("group-{}", new_id());
    fixture.commit(&group, &topic, 0, 100);
    let lags = fixture
        .admin
        .group_lag(&group, &[])
        .await
        .expect("the cluster reports the lag");
    assert_eq!((lags[0].committed, lags[0].lag), (Some(100), 0));
}

#[tokio::test]
async fn a_group_that_may_not_be_read_is_refused() {
    let fixture = fixture().await;
    fixture.topic(1);
    fixture.cluster.request_errors(
        RDKafkaApiKey::OffsetFetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED],
    );
    let error = fixture.admin.group_lag("group", &[]).await;
    let error = error.expect_err("not allowed");
    assert!(matches!(error, KafkaError::Refused { .. }), "{error:?}");
}

#[tokio::test]
async fn committed_offsets_are_read_again_when_the_coordinator_moves() {
    let fixture = fixture().await;
    let topic = fixture.topic(2);
    fixture.commit("one", &topic, 1, 7);
    fixture.commit("two", &topic, 0, 8);
    for (group, expected) in [("one", [None, Some(7)]), ("two", [Some(8), None])] {
        fixture.cluster.request_errors(
            RDKafkaApiKey::OffsetFetch,
            &[
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
            ],
        );
        let found = fixture.admin.committed(group, &topic, &[0, 1]).await;
        let found = found.expect("the coordinator answers in the end");
        let offsets: Vec<_> = found.iter().map(|part| part.offset).collect();
        assert_eq!(offsets, expected);
    }
}

#[tokio::test]
async fn a_refusal_of_offsets_names_the_missing_right() {
    let fixture = fixture().await;
    let topic = fixture.topic(1);
    fixture.cluster.request_errors(
        RDKafkaApiKey::OffsetFetch,
        &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED],
    );
    let error = fixture.admin.committed("payments", &topic, &[0]).await;
    let error = error.expect_err("not allowed");
    assert!(matches!(error, KafkaError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("DESCRIBE on the group payments"), "{text}");
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_named_with_the_cause() {
    let started = std::time::Instant::now();
    // Nothing listens on port 1.
    let config = KafkaConfig::new("127.0.0.1:1");
    let outcome = Admin::connect(&config, Duration::from_secs(1)).await;
    let error = outcome.expect_err("nobody answers there");
    let text = error.to_string();
    assert!(matches!(error, KafkaError::Unreachable { .. }), "{error:?}");
    assert!(
        text.contains("127.0.0.1:1") && text.contains("refused"),
        "{text}"
    );
    assert!(started.elapsed() < LONG);
}

#[tokio::test]
async fn a_cluster_that_goes_away_is_unreachable_within_the_timeout() {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let config = KafkaConfig::new(cluster.bootstrap_servers());
    let admin = Admin::connect(&config, Duration::from_secs(2)).await;
    let admin = admin.expect("connected");
    cluster.broker_down(-1).expect("the mock broker stops");
    let error = admin.topics().await.expect_err("nobody there");
    assert!(matches!(error, KafkaError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn what_the_client_logs_of_its_requests_does_not_queue() {
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    let mut config = KafkaConfig::new(cluster.bootstrap_servers());
    for property in ["debug=protocol", "log_level=7"] {
        config.set(property).expect("a property");
    }
    let admin = Admin::connect(&config, LONG).await.expect("connected");
    for _ in 0..100 {
        admin.topics().await.expect("the mock cluster answers");
    }
    let queued = queued_events(admin.connection.client().client());
    assert!(queued < 100, "{queued} events of 100 requests");
}

#[tokio::test]
async fn a_panic_over_an_unreadable_answer_is_an_error() {
    let answer = connection::blocking("asking", || -> Result<(), KafkaError> {
        panic!("not UTF-8");
    });
    let error = answer.await.expect_err("no answer");
    assert!(matches!(error, KafkaError::Unreadable { .. }), "{error:?}");
}
