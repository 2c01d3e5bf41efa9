//! While a retry topic cannot be read, the partitions that it belongs to wait: in bounded memory, all of them together, and none
//! of their records is lost, handled early or out of order.

use crate::control::operator::Operator;
use crate::support::member_process::{self, Spec, Work};
use crate::support::memory::{noise, resident_bytes_max};
use crate::support::{Case, Log, Member, WITHIN, guarded};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{JavaProgram, TestKafka, unique};
use std::collections::BTreeMap;
use std::time::Duration;

const TEST: &str =
    "recovery::gates::partitions_awaiting_a_retry_topic_take_bounded_memory_together";
/// Room for records, the client's prefetch of 6 MiB for each of two queues and one fetch more, and what a test binary takes.
const RESIDENT_BYTES_MAX: u64 = 112 << 20;

/// A topic of a group whose retry topic holds a record in each partition, so that it has to be read before anything is handled.
async fn with_parked(cluster: &TestKafka, partitions: i32) -> Case {
    let case = Case::on(cluster, "it-gates", partitions).await;
    // It makes the group's topics.
    let member = Member::start(
        &case.kafka,
        case.settings(),
        Router::new().raw(async |_: Record| {}),
    );
    member.joined().await;
    member.stop().await;
    let parked = |partition| OutgoingRecord {
        topic: retry_topic(&case.group, &case.topic),
        partition: Some(partition),
        ..case.record(Some("parked"), "parked")
    };
    case.publish((0..partitions).map(parked)).await;
    case
}

async fn acl(acl: &JavaProgram, cluster: &TestKafka, what: &str, case: &Case) {
    let topic = retry_topic(&case.group, &case.topic);
    let arguments = [cluster.brokers(), what, &topic];
    acl.run(&arguments, 3 * WITHIN)
        .await
        .expect("the ACL program succeeds");
}

/// `count` records for each partition, of `bytes` bytes at least, that begin with their number.
async fn publish(case: &Case, count: usize, bytes: usize) {
    let noise = noise(bytes, 5);
    let records = (0..count).flat_map(|n| (0..case.partitions).map(move |at| (n, at)));
    let records = records.map(|(n, partition)| {
        let value = [n.to_string().as_bytes(), b" ", &noise].concat();
        OutgoingRecord {
            partition: Some(partition),
            ..case.record(Some(&format!("k{partition}")), value)
        }
    });
    case.publish(records).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_awaiting_a_retry_topic_take_bounded_memory_together() {
    member_process::run_if_second().await;
    let Some((cluster, java)) = guarded().await else {
        return;
    };
    let case = with_parked(&cluster, 24).await;
    // 173 MB.
    publish(&case, 8, 900_000).await;
    acl(&java, &cluster, "close", &case).await;
    let work = Work::Stall {
        in_flight_bytes_max: 16 << 20,
    };
    let spec = Spec {
        properties: vec!["heartbeat.interval.ms=300".to_owned()],
        ..Spec::new(&case, work)
    };
    let mut member = spec.start(TEST);
    let mut most = 0;
    let mut quiet = 0;
    // Until it fetches no more.
    while quiet < 6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_bytes_max(member.id());
        let has_begun = now > 30 << 20;
        quiet = if has_begun && now == most {
            quiet + 1
        } else {
            0
        };
        most = now;
        assert!(most < RESIDENT_BYTES_MAX, "{} MiB", most >> 20);
    }
    assert!(member.is_running(), "a member ends by a kill only");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_awaiting_a_retry_topic_come_once_in_order() {
    const EACH: usize = 60;
    let Some((cluster, java)) = guarded().await else {
        return;
    };
    let operator = Operator::of(with_parked(&cluster, 4).await);
    let case = &operator;
    let other = unique("it-gates-open");
    let created = cluster.create_topic(&other, 2).await;
    created.expect("the topic is created");
    // 14 MB wait, more than is kept of them when the other topic's gates open.
    publish(case, EACH, 60_000).await;
    acl(&java, &cluster, "close", case).await;
    let handled = Log::<(String, i32, String)>::new();
    let router = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            let value = record.value().unwrap_or_default();
            let number = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            let number = String::from_utf8_lossy(number).into_owned();
            handled.push((record.topic().to_owned(), record.partition(), number));
            async {}
        })
    };
    let mut settings = case.settings();
    settings.topics.push(other.clone());
    let member = Member::start(&case.kafka, settings, router);
    member.joined().await;
    let in_other = |n: usize| OutgoingRecord {
        topic: other.clone(),
        partition: Some((n % 2) as i32),
        ..case.record(Some("other"), format!("{n} "))
    };
    case.publish((0..100).map(in_other)).await;
    handled.reach("records of the other topic", 100).await;
    let is_waiting = |(topic, ..): &(String, i32, String)| *topic == case.topic;
    // What the client gave out of it is not handled yet, and nothing of it is committed.
    operator.pause(operator.partition_scope(0)).await;
    operator.resume(operator.partition_scope(0)).await;
    assert!(
        !handled.entries().iter().any(is_waiting),
        "not before it is read"
    );

    acl(&java, &cluster, "permit", case).await;
    case.all_committed().await;
    let mut by_partition = BTreeMap::<i32, Vec<String>>::new();
    for (_, partition, number) in handled.entries().into_iter().filter(is_waiting) {
        by_partition.entry(partition).or_default().push(number);
    }
    let expected: Vec<String> = (0..EACH).map(|n| n.to_string()).collect();
    assert_eq!(by_partition.len(), 4);
    for (partition, mut numbers) in by_partition {
        // In a lane of its own key.
        numbers.retain(|number| number != "parked");
        assert_eq!(numbers, expected, "{partition}");
    }
    member.ready_again().await;
    assert!(member.stop().await.clean);
}
