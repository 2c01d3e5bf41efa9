//! G3 where records have no id: what stands at a known offset of a topic made anew is another record; and where an id comes
//! again with other content.

use crate::support::{Case, Log, Member, Step};
use evenkeel::event::{Event, OutgoingRecord, Record};
use evenkeel::handler::{ReusedIds, Router};
use evenkeel::inbox::MemoryInbox;
use evenkeel::recovery::retry_topic;
use std::collections::HashSet;

/// Logs every value that is handled.
fn raw(handled: &Log<String>, inbox: &MemoryInbox) -> Router {
    let handled = handled.clone();
    let router = Router::new().raw(move |record: Record| {
        handled.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
        std::future::ready(())
    });
    router.with_inbox(inbox.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_recreated_topic_are_new() {
    let Some(case) = Case::new("it-made-anew", 1).await else {
        return;
    };
    let (handled, inbox) = (Log::new(), MemoryInbox::default());
    let values = |of: &str| (0..50).map(|n| format!("{of}-{n}")).collect::<Vec<_>>();
    let publish = async |of: &str| {
        let records = values(of).into_iter();
        case.publish(records.map(|value| case.record(Some("key"), value)))
            .await;
        case.all_committed().await;
    };
    let member = Member::start(&case.kafka, case.settings(), raw(&handled, &inbox));
    publish("first").await;
    member.stop().await;
    case.recreate_topic(1).await;
    let member = Member::start(&case.kafka, case.settings(), raw(&handled, &inbox));
    publish("second").await;
    let report = member.stop().await;
    assert_eq!(
        handled.entries(),
        [values("first"), values("second")].concat()
    );
    assert_eq!(report.duplicates, 0, "{report:?}");
}

/// The offset that it has in the retry topic is one that the source has as well.
#[tokio::test(flavor = "multi_thread")]
async fn records_written_to_the_retry_topic_by_hand_are_new() {
    let Some(case) = Case::new("it-by-hand", 1).await else {
        return;
    };
    let (handled, inbox) = (Log::new(), MemoryInbox::default());
    let member = Member::start(&case.kafka, case.settings(), raw(&handled, &inbox));
    case.publish(["a", "b"].map(|value| case.record(Some("key"), value)))
        .await;
    case.all_committed().await;
    let mut by_hand = case.record(Some("key"), "b");
    by_hand.topic = retry_topic(&case.group, &case.topic);
    by_hand.partition = Some(0);
    case.publish([by_hand.clone(), by_hand]).await;
    handled.reach("records", 4).await;
    member.stop().await;
    assert_eq!(handled.entries(), ["a", "b", "b", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_event_id_is_suppressed_or_dead_lettered() {
    let Some(case) = Case::new("it-reused", 1).await else {
        return;
    };
    let publisher = case.publisher();
    let event = |id: &str, number| {
        let mut event = Event::new(
            "/it",
            Step {
                key: "k".to_owned(),
                number,
            },
        );
        event.attributes.id = id.to_owned();
        let encoded = publisher
            .encode(&event, None)
            .expect("a step can be encoded");
        OutgoingRecord {
            topic: case.topic.clone(),
            ..encoded
        }
    };
    // A copy byte for byte is a duplicate, whatever is asked for.
    case.publish([event("1", 1), event("1", 1), event("1", 2), event("2", 3)])
        .await;
    for (policy, dead) in [(ReusedIds::Suppress, 0), (ReusedIds::DeadLetter, 1)] {
        let case = Case {
            kafka: case.kafka.clone(),
            topic: case.topic.clone(),
            group: format!("{}-{policy:?}", case.group),
            partitions: 1,
        };
        let handled = Log::new();
        let router = {
            let handled = handled.clone();
            Router::new()
                .on(move |step: Event<Step>| {
                    handled.push(step.data.number);
                    std::future::ready(())
                })
                .with_reused_ids(policy)
                .with_inbox(MemoryInbox::default())
        };
        let member = Member::start(&case.kafka, case.settings(), router);
        case.all_committed().await;
        let report = member.stop().await;
        assert_eq!(handled.entries(), [1, 3]);
        assert_eq!(report.dead_letters, dead, "{report:?}");
        let letters = format!("dlq.{}.{}", case.group, case.topic);
        let letters = case.read(&letters).await;
        let stages: HashSet<_> = letters
            .iter()
            .filter_map(|letter| letter.headers.last("evenkeel.dlq.error.stage"))
            .collect();
        assert_eq!(stages.len() as u64, dead);
        assert!(stages.iter().all(|stage| *stage == b"inbox"), "{stages:?}");
    }
}
