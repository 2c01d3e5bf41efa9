//! What stands at the end of a partition and is no record, such as a transaction's marker, is no lag; and what a run to the end
//! takes.

use crate::support::{Case, Log, Member};
use evenkeel::consumer::StopWhen;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::recovery::retry_topic;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::HashSet;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_commits_past_the_markers_of_transactions() {
    let Some(case) = Case::new("it-marker", 1).await else {
        return;
    };
    let member = Member::start(
        &case.kafka,
        case.settings(),
        Router::new().raw(async |_: Record| {}),
    );
    member.joined().await;
    let (brokers, topic) = (case.kafka.brokers.clone(), case.topic.clone());
    let transact = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("transactional.id", &topic)
            .create()
            .expect("a producer");
        let within = Duration::from_secs(30);
        producer.init_transactions(within).expect("it starts");
        let write = |value: &str| {
            producer.begin_transaction().expect("it begins");
            let record: BaseRecord<'_, (), str> = BaseRecord::to(&topic).payload(value);
            producer.send(record).expect("it is sent");
            producer.flush(within).expect("it is acknowledged");
        };
        write("kept");
        producer.commit_transaction(within).expect("it commits");
        write("taken back");
        producer.abort_transaction(within).expect("it aborts");
    };
    tokio::task::spawn_blocking(transact)
        .await
        .expect("the task does not panic");
    // Two records, a marker behind each.
    case.offsets().reach(0, 4).await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.clean), (1, true));
}

/// As a replay of dead letters leaves it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_includes_due_retry_records() {
    let Some(case) = Case::new("it-due", 2).await else {
        return;
    };
    let handled = Log::new();
    let run = async || {
        let handled = handled.clone();
        let router = Router::new().raw(move |record: Record| {
            handled.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
            std::future::ready(())
        });
        let mut settings = case.settings();
        settings.stop_when = StopWhen::UntilEnd;
        Member::start(&case.kafka, settings, router).ended().await
    };
    case.publish([case.record(Some("key"), "source")]).await;
    assert_eq!(run().await.settled, 1);
    // More than are handed out at a time.
    let due = (0..3_000).map(|n| OutgoingRecord {
        topic: retry_topic(&case.group, &case.topic),
        partition: Some(n % 2),
        ..case.record(Some(&format!("k{}", n % 700)), format!("due-{n}"))
    });
    case.publish(due).await;
    run().await;
    let values: HashSet<String> = handled.entries().into_iter().collect();
    assert_eq!((values.len(), handled.len()), (3_001, 3_001));
    run().await;
    assert_eq!(handled.len(), 3_001, "settled");
}
