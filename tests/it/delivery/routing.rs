//! Routers lose nothing silently: what nobody asks for is counted, and a handler for the rest gets it.

use crate::support::{Case, Log, Member, Step};
use evenkeel::event::{Event, OutgoingRecord, Record};
use evenkeel::handler::Router;

/// An event of another team's type, with an attribute of its own that no instant can hold.
fn other(case: &Case, number: usize) -> OutgoingRecord {
    let mut record = case.record(Some(&format!("k{number}")), "not JSON");
    for (name, value) in [
        ("ce_specversion", "1.0"),
        ("ce_id", &*number.to_string()),
        ("ce_source", "/other"),
        ("ce_type", "other.contract-created.v1"),
        ("ce_time", "9999-12-31T00:00:00Z"),
    ] {
        record.headers.push(name, Some(value.as_bytes()));
    }
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn unhandled_types_are_ignored_and_counted_whatever_they_hold() {
    let Some(case) = Case::new("it-routing", 1).await else {
        return;
    };
    // More than the flood guard lets be dead letters in a row.
    case.publish((0..150).map(|number| other(&case, number)))
        .await;
    let step = case.step(&case.publisher(), "k", 1);
    case.publish([step]).await;
    let router = Router::new().on(async |_: Event<Step>| {});
    let member = Member::start(&case.kafka, case.settings(), router);
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!(
        (report.settled, report.ignored, report.dead_letters),
        (151, 150, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_handlers_get_events_and_fallbacks_get_the_rest() {
    let Some(case) = Case::new("it-routing", 1).await else {
        return;
    };
    let step = case.step(&case.publisher(), "k", 1);
    let plain = case.record(Some("k"), "plain");
    case.publish([step, plain, other(&case, 1)]).await;
    let log = |log: &Log<i64>| {
        let log = log.clone();
        move |record: Record| {
            log.push(record.offset());
            async {}
        }
    };
    let (all, rest) = (Log::new(), Log::new());
    let raw = Member::start(&case.kafka, case.settings(), Router::new().raw(log(&all)));
    case.all_committed().await;
    assert_eq!(raw.stop().await.ignored, 0);
    let mut all = all.entries();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2]);

    let other_group = Case::named(case.kafka.clone(), case.topic.clone(), 1);
    let router = Router::new()
        .on(async |_: Event<Step>| {})
        .fallback(log(&rest));
    let typed = Member::start(&case.kafka, other_group.settings(), router);
    other_group.all_committed().await;
    let report = typed.stop().await;
    assert_eq!(
        (report.settled, report.ignored, report.dead_letters),
        (3, 0, 0)
    );
    let mut rest = rest.entries();
    rest.sort_unstable();
    assert_eq!(rest, [1, 2]);
}
