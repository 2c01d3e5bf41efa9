//! Logs that lose their end, and topics that are deleted and created again: no record that is there is passed over, and the loss
//! shows. With `log_level=3`, so that nothing hangs on a line of librdkafka's log.

use crate::control::operator::Operator;
use crate::support::{Case, Gate, Log, Member, WITHIN, assignment, set};
use evenkeel::consumer::Assignment;
use evenkeel::control::Scope;
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::{TestKafka, eventually, required, unique};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A group of the case's topic.
fn group_of(case: &Case, name: &str) -> Case {
    Case {
        kafka: case.kafka.clone(),
        topic: case.topic.clone(),
        group: format!("{}-{name}", case.group),
        partitions: case.partitions,
    }
}

async fn publish(case: &Case, prefix: &str, count: usize) {
    let record = |n: usize| case.record(Some(&format!("k{}", n % 10)), format!("{prefix}-{n}"));
    case.publish((0..count).map(record)).await;
}

/// Logs every value that is handled; the one called `slow` once the gate is open.
fn router(handled: &Log<String>, slow: &'static str, gate: &Gate) -> Router {
    let (handled, gate) = (handled.clone(), gate.clone());
    Router::new().raw(move |record: Record| {
        let (handled, gate) = (handled.clone(), gate.clone());
        async move {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            if value == slow {
                gate.pass().await;
            }
            handled.push(value);
            Ok::<_, HandlerError>(())
        }
    })
}

/// Logs every value that is handled.
fn logging(handled: &Log<String>) -> Router {
    let open = Gate::closed();
    open.open();
    router(handled, "", &open)
}

/// Waits until all values of this kind are among those handled.
async fn all_handled(who: &str, handled: &Log<String>, prefix: &str, count: usize) {
    eventually(
        &format!("{who} handles all of {prefix}"),
        WITHIN,
        || async {
            let entries = handled.entries();
            let seen: HashSet<&String> = entries.iter().collect();
            let all = (0..count).all(|n| seen.contains(&format!("{prefix}-{n}")));
            all.then_some(())
        },
    )
    .await;
}

fn is_noted(member: &Member, reason: &str) -> bool {
    let notes = member.notes();
    notes.iter().any(|(_, note)| note.contains(reason))
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_written_after_a_truncation_are_handled() {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let Some(cluster) = required(TestKafka::start_in(directory.path()).await) else {
        return;
    };
    let mut case = Case::on(&cluster, "it-truncated", 1).await;
    set(&mut case.kafka, "log_level=3");
    set(&mut case.kafka, "reconnect.backoff.max.ms=500");
    let partition = directory.path().join(format!("data/{}-0", case.topic));
    let snapshot = directory.path().join("snapshot");
    publish(&case, "old", 500).await;
    copy(&partition, &snapshot);
    publish(&case, "lost", 500).await;

    let live = group_of(&case, "live");
    let at_live = Log::new();
    let member = Member::start(&live.kafka, live.settings(), logging(&at_live));
    // Stopped, with everything committed.
    let down = group_of(&case, "down");
    let stopped = Member::start(&down.kafka, down.settings(), logging(&Log::new()));
    // Stopped, with everything settled behind a record that is not.
    let slow = group_of(&case, "slow");
    let (at_slow, gate) = (Log::new(), Gate::closed());
    let mut held = slow.settings();
    held.drain_timeout = Duration::from_millis(500);
    let holding = Member::start(&slow.kafka, held, router(&at_slow, "old-400", &gate));
    live.all_committed().await;
    down.all_committed().await;
    at_slow
        .reach("records beside a slow one and its key", 940)
        .await;
    assert!(stopped.stop().await.clean);
    assert!(!holding.stop().await.clean);

    drop(cluster);
    std::fs::remove_dir_all(&partition).expect("the folder is removed");
    copy(&snapshot, &partition);
    let cluster = required(TestKafka::start_in(directory.path()).await);
    let cluster = cluster.expect("it was there before");
    // More than were lost, so that the log grows beyond every position.
    publish(&case, "new", 800).await;

    all_handled("a running member", &at_live, "new", 800).await;
    live.all_committed().await;
    assert!(is_noted(&member, "truncated"), "{:?}", member.notes());
    assert!(member.stop().await.clean);
    for (who, case) in [("after a stop", &down), ("with settled ones above", &slow)] {
        let handled = Log::new();
        let member = Member::start(&case.kafka, case.settings(), logging(&handled));
        all_handled(who, &handled, "new", 800).await;
        case.all_committed().await;
        assert!(
            is_noted(&member, "truncated"),
            "{who}: {:?}",
            member.notes()
        );
        let again = handled
            .entries()
            .iter()
            .filter(|value| value.starts_with("old"))
            .count();
        assert!(again <= 500, "{who}: {again} of those that are still there");
        member.stop().await;
    }
    drop(cluster);
}

/// Brokers may learn of a created topic after its creation was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_starts_although_its_topic_appears_a_moment_later() {
    let Some(case) = Case::new("it-later", 1).await else {
        return;
    };
    case.delete_topic(&case.topic).await;
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    tokio::time::sleep(Duration::from_secs(1)).await;
    case.create_topic(&case.topic, 1, &[]).await;
    publish(&case, "late", 10).await;
    all_handled("the member", &handled, "late", 10).await;
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_larger_topic_is_handled_from_its_beginning() {
    let Some(mut case) = Case::new("it-recreated", 1).await else {
        return;
    };
    set(&mut case.kafka, "log_level=3");
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    publish(&case, "old", 100).await;
    case.all_committed().await;
    case.recreate_topic(1).await;
    // A client learns of it only while records are published beyond its position.
    publish(&case, "new", 150).await;
    all_handled("a running member", &handled, "new", 150).await;
    case.all_committed().await;
    // Where the brokers assign, they assign the new topic anew, and the group has no offset of it.
    assert!(
        is_noted(&member, "recreated")
            || is_noted(&member, "truncated")
            || !has_position(&case).await
            || assignment() == Assignment::Broker
    );
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_with_fewer_partitions_is_handled() {
    let Some(case) = Case::new("it-fewer", 6).await else {
        return;
    };
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    publish(&case, "old", 100).await;
    case.all_committed().await;
    case.recreate_topic(2).await;
    let fewer = Case {
        partitions: 2,
        ..group_of(&case, "unused")
    };
    publish(&fewer, "new", 150).await;
    all_handled("a running member", &handled, "new", 150).await;
    member.ready_within(2 * WITHIN).await;
    // Others can be paused, and go on.
    let operator = Operator::of(Case {
        group: case.group.clone(),
        ..group_of(&case, "same")
    });
    operator.pause(Scope::Group).await;
    operator.resume(Scope::Group).await;
    publish(&fewer, "resumed", 50).await;
    all_handled("a resumed member", &handled, "resumed", 50).await;
    // And handles those that come again.
    case.grow_topic(6).await;
    publish(&case, "more", 150).await;
    all_handled("a running member", &handled, "more", 150).await;
    assert!(member.stop().await.clean);
}

/// Whether the group kept an offset over the topic's deletion.
async fn has_position(case: &Case) -> bool {
    case.offsets().metadata_of(0).await.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_of_a_deleted_topic_is_not_resumed() {
    let Some(case) = Case::new("it-other-topic", 1).await else {
        return;
    };
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    publish(&case, "old", 20).await;
    case.all_committed().await;
    member.stop().await;
    let metadata = case.offsets().metadata_of(0).await.expect("metadata");
    case.recreate_topic(1).await;
    publish(&case, "new", 50).await;
    commit_by_hand(&case, 20, &metadata).await;
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    all_handled("the next member", &handled, "new", 50).await;
    case.all_committed().await;
    assert!(is_noted(&member, "recreated"), "{:?}", member.notes());
    member.stop().await;
}

/// Commits as another tool would, or a member that did not know that the topic was deleted.
async fn commit_by_hand(case: &Case, offset: i64, metadata: &str) {
    let (kafka, group) = (case.kafka.brokers.clone(), case.group.clone());
    let (topic, metadata) = (case.topic.clone(), metadata.to_owned());
    let commit = move || {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &kafka)
            .set("group.id", &group)
            .create()
            .expect("a client that never joins");
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&topic, 0);
        element
            .set_offset(Offset::Offset(offset))
            .expect("an offset");
        element.set_metadata(metadata);
        client
            .commit(&list, CommitMode::Sync)
            .expect("the offsets are committed");
    };
    tokio::task::spawn_blocking(commit)
        .await
        .expect("the task does not panic");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_committed_where_the_brokers_take_no_metadata() {
    for refusal in [
        Code::RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
        Code::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE,
    ] {
        let cluster: MockCluster<'static, DefaultProducerContext> =
            MockCluster::new(1).expect("the mock cluster starts");
        let topic = unique("it-metadata");
        cluster
            .create_topic(&topic, 1, 1)
            .expect("the topic is created");
        let case = Case::named(KafkaConfig::new(cluster.bootstrap_servers()), topic, 1);
        let (handled, gate) = (Log::new(), Gate::closed());
        let mut settings = case.settings();
        settings.commit_interval = WITHIN * 10;
        let member = Member::start(&case.kafka, settings, router(&handled, "r-7", &gate));
        publish(&case, "r", 20).await;
        handled
            .reach("records beside a slow one and its key", 17)
            .await;
        // As many as forms with metadata are tried, at one stop.
        cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refusal; 7]);
        gate.open();
        assert!(member.stop().await.clean, "{refusal:?}");
        assert_eq!(case.offsets().committed_of(0).await, 20, "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_cannot_store_settled_offsets_is_unclean() {
    let Some(case) = Case::new("it-cut", 1).await else {
        return;
    };
    const RECORDS: usize = 40_000;
    let handled: Log<u64> = Log::new();
    let log = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        let log = log.clone();
        async move {
            let number = record.offset() as u64;
            // A third of them, at random places: nothing that could be told in a few bytes.
            if number.wrapping_mul(0x9e37_79b9_7f4a_7c15).is_multiple_of(3) {
                return Outcome::Retry(HandlerError::outage("down").dependency("provider"));
            }
            log.push(number);
            Outcome::Done
        }
    });
    let mut settings = case.settings();
    settings.in_flight_records_max = Some(RECORDS);
    settings.breaker.failures_min = u32::MAX;
    settings.drain_timeout = Duration::from_secs(5);
    let member = Member::start(&case.kafka, settings, router);
    let record = |n: usize| case.record(Some(&format!("k{n}")), "x");
    case.publish((0..RECORDS).map(record)).await;
    handled.reach("records handled", RECORDS / 2).await;
    assert!(!member.stop().await.clean);
}
