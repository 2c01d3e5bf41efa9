//! The group's own topics, made badly by others or by defaults of the brokers, and sources that grow: nothing is lost in
//! silence.

use crate::control::operator::Operator;
use crate::support::{Case, Member, WITHIN, set};
use evenkeel::consumer::{
    Consumer, ConsumerError, ConsumerSettings, GroupTopic, GroupTopicState, GroupTopics,
};
use evenkeel::control::{Action, Scope};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::admin::Admin;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{TestKafka, eventually, required};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

async fn look(case: &Case, admin: &Admin) -> Vec<GroupTopic> {
    let own = GroupTopics::new(&case.group, [&case.topic]);
    own.describe(admin)
        .await
        .expect("the brokers show the topics")
}

async fn alter(admin: &Admin, topic: &str, setting: &str, value: &str) {
    let settings = BTreeMap::from([(setting.to_owned(), value.to_owned())]);
    admin
        .alter_topic(topic, &settings)
        .await
        .expect("the broker alters the topic");
}

/// Fails for good what is `bad`, for now what is `later`, and handles the rest.
fn router() -> Router {
    Router::new().raw(|record: Record| {
        std::future::ready(match record.value() {
            Some(b"bad") => Outcome::Retry(HandlerError::permanent("bad")),
            Some(b"later") => Outcome::Retry(HandlerError::transient("not now")),
            _ => Outcome::Done,
        })
    })
}

/// Parks at once, for an hour.
fn parking(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3600)];
    settings.own_topics_interval = Duration::from_secs(2);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn own_topics_grow_with_their_source() {
    let Some(mut case) = Case::new("it-own", 1).await else {
        return;
    };
    set(&mut case.kafka, "topic.metadata.refresh.interval.ms=1000");
    // The dead-letter writer is not told of it by the client's own clock.
    let mut settings = parking(&case);
    settings.own_topics_interval = Duration::from_secs(3600);
    let member = Member::start(&case.kafka, settings, router());
    member.joined().await;
    case.publish([case.record(Some("first"), "bad")]).await;
    case.grow_topic(3).await;
    let record = |partition, value: &str| OutgoingRecord {
        partition: Some(partition),
        ..case.record(Some(value), value.to_owned())
    };
    case.publish([record(1, "bad"), record(2, "later"), record(2, "bad")])
        .await;
    let grown = Case {
        partitions: 3,
        ..case
    };
    grown.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (3, 1), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_default_of_the_brokers_spoils_own_topics() {
    let started = TestKafka::start_with(&[
        ("log.retention.bytes", "1048576"),
        ("log.retention.ms", "60000"),
        ("log.segment.bytes", "1048576"),
        ("log.cleanup.policy", "compact"),
        ("log.message.timestamp.after.max.ms", "1000"),
        ("log.message.timestamp.before.max.ms", "60000"),
        ("unclean.leader.election.enable", "true"),
        ("compression.type", "uncompressed"),
        ("message.max.bytes", "100000"),
    ])
    .await;
    let Some(cluster) = required(started) else {
        return;
    };
    let case = Case::on(&cluster, "it-own", 2).await;
    let member = Member::start(&case.kafka, parking(&case), router());
    member.joined().await;
    // A compacted topic refuses a letter without a key, and takes a parked record's note for its tombstone.
    case.publish([
        case.record(Some("k"), "bad"),
        case.record(Some("k"), "later"),
    ])
    .await;
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (1, 1), "{report:?}");
    for topic in look(&case, &case.admin().await).await {
        assert_eq!(topic.state, GroupTopicState::Present, "{topic:?}");
        assert!(topic.faults.is_empty(), "{topic:?}");
        assert_eq!(topic.pending_changes(), None);
    }
}

/// What a run says that does not begin.
async fn refusal(case: &Case) -> Option<ConsumerError> {
    let consumer = Consumer::new(case.kafka.clone(), parking(case), router());
    let run = consumer
        .expect("the settings of the consumer are valid")
        .run(CancellationToken::new());
    match tokio::time::timeout(Duration::from_secs(15), run).await {
        Ok(ended) => ended.err(),
        Err(_) => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_that_loses_records_is_refused_and_mended() {
    let forever = ("retention.ms", "-1");
    for (fault, settings) in [
        (
            "retention.ms",
            [("retention.ms", "604800000"), ("retention.bytes", "-1")],
        ),
        (
            "retention.bytes",
            [forever, ("retention.bytes", "1073741824")],
        ),
        ("cleanup.policy", [forever, ("cleanup.policy", "compact")]),
    ] {
        let Some(case) = Case::new("it-own", 3).await else {
            return;
        };
        let retry = retry_topic(&case.group, &case.topic);
        case.create_topic(&retry, 1, &settings).await;
        let refused = refusal(&case).await;
        let Some(ConsumerError::Kafka(error @ KafkaError::UnsafeTopic { .. })) = refused else {
            panic!("{fault}: {refused:?}");
        };
        let told = error.to_string();
        let command = format!("evenkeel groups topics {} --execute", case.group);
        assert!(told.contains(fault) && told.ends_with(&command), "{told}");
        let admin = case.admin().await;
        for topic in look(&case, &admin).await {
            topic
                .repair(&admin)
                .await
                .expect("the brokers create the topic");
        }
        for topic in look(&case, &admin).await {
            assert_eq!(topic.pending_changes(), None, "{topic:?}");
            assert_eq!(topic.partitions, topic.partitions_wanted);
        }
        let member = Member::start(&case.kafka, parking(&case), router());
        member.joined().await;
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_unsafe_while_running_is_an_alarm() {
    let Some(case) = Case::new("it-own", 1).await else {
        return;
    };
    let member = Member::start(&case.kafka, parking(&case), router());
    member.joined().await;
    let admin = case.admin().await;
    let retry = retry_topic(&case.group, &case.topic);
    alter(&admin, &retry, "retention.ms", "604800000").await;
    let complaint = member.complaint("own_topics").await;
    assert!(
        complaint.contains("retention.ms is 604800000"),
        "{complaint}"
    );
    alter(&admin, &retry, "retention.ms", "-1").await;
    member.joined().await;
    // Dead letters that expire are no reason to stop.
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    alter(&admin, &letters, "retention.ms", "604800000").await;
    let note = eventually("a note", WITHIN, || async {
        let notes = member.notes().into_iter();
        notes
            .map(|(_, note)| note)
            .find(|note| note.contains(&letters))
    })
    .await;
    assert!(note.contains("dead letters"), "{note}");
    assert!(member.health.not_ready().is_empty());
    member.stop().await;
    let mut accepting = parking(&case);
    accepting.dead_letters_kept_min = Some(Duration::from_secs(7 * 86_400));
    let member = Member::start(&case.kafka, accepting, router());
    member.joined().await;
    eventually("a look", WITHIN, || async {
        let components = member.health.components();
        let mut components = components.iter();
        components
            .any(|name| name.starts_with("own_topics"))
            .then_some(())
    })
    .await;
    assert!(member.notes().is_empty(), "{:?}", member.notes());
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_parked_records_alarm_until_the_loss_is_accepted() {
    let Some(case) = Case::new("it-own", 1).await else {
        return;
    };
    let operator = Operator::of(case);
    let start = || Member::start(&operator.kafka, parking(&operator), router());
    let member = start();
    let parked = |key: usize| operator.record(Some(&format!("k{key}")), "later");
    operator.publish((0..5).map(parked)).await;
    operator.all_committed().await;
    let retry = retry_topic(&operator.group, &operator.topic);
    // Maybe before it read its own entries back.
    assert!(member.stop().await.clean);

    let admin = operator.admin().await;
    let deleted = admin
        .delete_records(&retry, &BTreeMap::from([(0, 3)]))
        .await;
    assert_eq!(
        deleted.expect("the records are deleted"),
        BTreeMap::from([(0, 3)])
    );
    for _ in 0..2 {
        // Again after a restart: nothing was stepped over.
        let member = start();
        let complaint = member.complaint("parked_records").await;
        assert!(complaint.starts_with("3 entries of 1 retry"), "{complaint}");
        assert!(complaint.contains("accept-loss"), "{complaint}");
        assert!(member.stop().await.clean);
    }
    let member = start();
    member.complaint("parked_records").await;
    let action = Action::AcceptLoss {
        scope: Scope::Group,
    };
    operator.command(action).await;
    member.joined().await;
    operator.offsets_of(&retry, 1).reach(0, 3).await;
    assert!(member.stop().await.clean);
    let member = start();
    member.joined().await;
    assert!(member.stop().await.clean);
}
