//! The comparison of a ring with its topic.

use super::*;
use crate::access::AllowList;
use crate::stream::cursor::TopicIdentity;
use crate::stream::ring::{Joined, Place};
use crate::stream::source::LogBounds;
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::admin::{Admin, NewTopic};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::schema::Catalogue;
use evenkeel::testing::{TestKafka, eventually, read_topic, required, unique};

const WITHIN: Duration = Duration::from_secs(60);

fn log(identity: Option<TopicIdentity>, next: Vec<i64>) -> TopicLog {
    let log = TopicLog::new("topic");
    log.set_state(LogState::Running(identity, Ring::new(next, 1 << 20, 100)));
    log
}

fn facts(identity: Option<TopicIdentity>, bounds: &[(i64, i64)]) -> TopicFacts {
    let bounds = bounds.iter().map(|(low, high)| LogBounds {
        low: Some(*low),
        high: Some(*high),
    });
    TopicFacts {
        identity,
        partitions: bounds.collect(),
    }
}

#[test]
fn the_reader_is_replaced_only_if_the_log_changed() {
    let (one, other) = (Some([1; 16]), Some([2; 16]));
    let bounds = [(0, 10), (0, 10)];
    for (known, facts, expected) in [
        (one, facts(one, &bounds), None),
        (one, facts(None, &bounds), None),
        (None, facts(one, &bounds), None),
        // Recreated.
        (one, facts(other, &[(1, 20), (0, 20)]), Some(vec![1, 0])),
        (None, facts(None, &[(0, 3)]), Some(vec![0])),
        // Cut.
        (one, facts(one, &[(0, 10), (0, 3)]), Some(vec![5, 3])),
        // Grown.
        (
            one,
            facts(one, &[(0, 10), (0, 10), (0, 2)]),
            Some(vec![5, 7, 0]),
        ),
    ] {
        let log = log(known, vec![5, 7]);
        assert_eq!(log.reconcile(&[5, 7], None, &facts), expected, "{facts:?}");
    }
}

#[test]
fn records_read_during_a_request_are_no_cut() {
    let log = log(None, vec![5, 7]);
    // The request was made at 3 and 7, and the ring has moved on.
    let of_then = facts(None, &[(0, 4), (0, 7)]);
    assert_eq!(log.reconcile(&[3, 7], None, &of_then), None);
    // The second partition was cut meanwhile; the first one has all that was read.
    let cut = facts(None, &[(0, 4), (0, 6)]);
    assert_eq!(log.reconcile(&[3, 7], None, &cut), Some(vec![5, 6]));
}

#[test]
fn a_log_that_grew_again_is_cut_where_it_diverged() {
    let log = log(None, vec![5, 7]);
    let grown = facts(None, &[(0, 20), (0, 20)]);
    let found = log.reconcile(&[5, 7], Some((1, 4)), &grown);
    assert_eq!(found, Some(vec![5, 4]));
    let mut place = Place::of_generation(vec![5, 7], 0);
    let gap = LogGap {
        partition: 1,
        from: 7,
        to: 4,
    };
    let (_, joined) = log.join(&mut place).expect("it runs");
    assert_eq!(joined, Joined::Ring(vec![gap]));
}

#[test]
fn an_ended_log_tells_its_reason() {
    let log = log(None, vec![0]);
    let mut place = Place::new(vec![0]);
    assert!(log.join(&mut place).is_ok());
    let problem = Problem::new(ProblemKind::NotFound, "deleted");
    log.set_state(LogState::Ended(problem.clone()));
    assert_eq!(log.join(&mut place), Err(problem));
}

/// A topic whose log begins with an offset that holds no record any more, and then has many.
async fn compacted(kafka: &KafkaConfig) -> String {
    let topic = NewTopic::new(unique("compacted"))
        .with_partitions(1)
        .with_setting("cleanup.policy", "compact")
        .with_setting("segment.ms", "100")
        .with_setting("min.cleanable.dirty.ratio", "0.01");
    let admin = Box::pin(Admin::connect(kafka, WITHIN)).await;
    let admin = admin.expect("the broker answers");
    let created = admin.create_topics(std::slice::from_ref(&topic)).await;
    created.expect("the topic is new");
    let publisher = Publisher::new(kafka, PublisherSettings::new("/test"));
    let publisher = publisher.expect("the settings are valid");
    let publish = async |key: String| {
        let record = OutgoingRecord {
            topic: topic.name.clone(),
            partition: None,
            key: Some(key.into()),
            value: Some("{}".into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let published = publisher.publish_record(record).await;
        published.expect("the broker accepts it");
    };
    publish("replaced".to_owned()).await;
    publish("replaced".to_owned()).await;
    eventually("the first record is deleted", WITHIN, || async {
        // Only closed segments are compacted, and a record closes the one before it.
        publish(unique("key")).await;
        let records = read_topic(kafka, &topic.name, WITHIN).await;
        records
            .first()
            .is_some_and(|record| record.offset == 1)
            .then_some(())
    })
    .await;
    topic.name
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_place_behind_a_record_is_a_divergence() {
    let started = TestKafka::start_with(&[("log.cleaner.backoff.ms", "100")]).await;
    let Some(kafka) = required(started) else {
        return;
    };
    let kafka = kafka.config();
    let topic: Arc<str> = compacted(&kafka).await.into();
    let catalogue = Catalogue::from_texts([]).expect("an empty catalogue");
    let allow_list = AllowList::new(Vec::new(), Arc::new(catalogue)).expect("an empty list");
    let source = LogSource::new(kafka, Arc::new(allow_list), WITHIN);
    let facts = source.facts(&topic).await.expect("the broker answers");
    let end = facts.highs().expect("a leader");
    let log = Arc::new(TopicLog::new(&topic));
    let ring = Ring::new(end.clone(), 1 << 20, 100);
    log.set_state(LogState::Running(facts.identity, ring));
    // The client is out of range, as after an unclean election.
    let beyond = vec![end[0] + 1_000];
    let reader = source.follow(&topic, &beyond).await.expect("a client");
    let logs = Arc::new(TopicLogs::new(source, StreamSettings::default()));
    let mut follower = Follower {
        logs: &logs,
        log: &log,
        reader,
        checked: Instant::now(),
        request: None,
        used: Instant::now(),
    };
    while follower.reader.next() == beyond {
        follower.step().await.expect("the broker answers");
    }
    assert_eq!(
        (follower.reader.next(), log.positions()),
        (end.clone(), end)
    );
    let generation = || log.end().expect("it runs").generation;
    assert_eq!(generation(), 0, "no stream begins anew");

    let place = PlaceOfReturn {
        partition: 0,
        first: 0,
        offset: 2,
    };
    let went_back = follower.go_back(Some(place)).await;
    went_back.expect("the broker answers");
    assert_eq!((log.positions(), generation()), (vec![2], 1));
}

#[test]
fn a_place_beyond_the_end_is_not_looked_for() {
    let place = PlaceOfReturn {
        partition: 1,
        first: 0,
        offset: 5,
    };
    for (bounds, expected) in [
        (&[(0, 9), (0, 6)][..], false),
        (&[(0, 9), (0, 5)], true),
        (&[(0, 9)], true),
    ] {
        assert_eq!(is_at_end(place, &facts(None, bounds)), expected);
    }
}
