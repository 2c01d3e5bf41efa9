//! G6: a clean stop drains, commits and leaves within its deadline, and the next start redelivers nothing settled.

use crate::support::{Case, Gate, Log, Member, Place, WITHIN, place, set};
use evenkeel::consumer::{StopWhen, Stopped};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::eventually;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// A handler that takes a few milliseconds and logs what it finished.
fn slow_router(handled: &Log<Place>) -> Router {
    let handled = handled.clone();
    Router::new().raw(move |record: Record| {
        let handled = handled.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            handled.push(place(&record));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_of_the_load_redelivers_nothing() {
    const RECORDS: usize = 4000;
    let Some(case) = Case::new("it-g6", 4).await else {
        return;
    };
    case.publish_load(RECORDS, 100).await;
    let handled = Log::new();
    let mut stops = 0;
    while stops < 4 {
        let before = handled.len();
        let member = Member::start(&case.kafka, case.settings(), slow_router(&handled));
        handled.reach("records handled", before + 300).await;
        let report = member.stop().await;
        assert_eq!((report.stopped, report.clean), (Stopped::Requested, true));
        assert_eq!(report.settled as usize, handled.len() - before);
        stops += 1;
    }
    assert!(
        handled.len() < RECORDS,
        "the stops came in the middle of the load"
    );
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    let report = Member::start(&case.kafka, settings, slow_router(&handled))
        .ended()
        .await;
    assert_eq!(
        (report.stopped, report.clean),
        (Stopped::BoundReached, true)
    );
    let all: HashSet<Place> = handled.entries().into_iter().collect();
    assert_eq!(
        (all.len(), handled.len()),
        (RECORDS, RECORDS),
        "each was handled once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_settled_above_a_stuck_one_do_not_come_again() {
    let Some(case) = Case::new("it-g6", 1).await else {
        return;
    };
    case.publish_load(1000, 1000).await;
    let (gate, handled) = (Gate::closed(), Log::new());
    let router = |gate: &Gate| {
        let (gate, handled) = (gate.clone(), handled.clone());
        Router::new().raw(move |record: Record| {
            let (gate, handled) = (gate.clone(), handled.clone());
            async move {
                if record.offset() % 400 == 7 {
                    gate.pass().await;
                }
                handled.push(place(&record));
            }
        })
    };
    let mut settings = case.settings();
    settings.drain_timeout = Duration::from_millis(300);
    let member = Member::start(&case.kafka, settings, router(&gate));
    handled.reach("records beside the stuck ones", 997).await;
    let asked = Instant::now();
    let report = member.stop().await;
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        (report.settled, report.clean),
        (997, false),
        "it says that it left records behind"
    );
    let offsets = case.offsets();
    assert_eq!(offsets.committed_of(0).await, 7);

    let open = Gate::closed();
    open.open();
    let member = Member::start(&case.kafka, case.settings(), router(&open));
    offsets.reach(0, 1000).await;
    let report = member.stop().await;
    assert_eq!(
        (report.received, report.settled, report.clean),
        (3, 3, true)
    );
    let mut late = handled.entries()[997..].to_vec();
    late.sort_unstable();
    assert_eq!(late, [(0, 7), (0, 407), (0, 807)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stopped_leaves_its_group_at_once() {
    let Some(case) = Case::new("it-g6", 1).await else {
        return;
    };
    let handled = Log::new();
    let first = Member::start(&case.kafka, case.settings(), slow_router(&handled));
    first.joined().await;
    assert!(first.stop().await.clean);
    assert_eq!(case.members().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_rebalance_leaves_the_group_at_once() {
    let Some(mut case) = Case::new("it-g6", 4).await else {
        return;
    };
    // As the client has it by default: a rebalance takes seconds, and has several states to stop in.
    set(&mut case.kafka, "heartbeat.interval.ms=3000");
    // Longer than the test waits: a member that does not leave is not forgotten meanwhile.
    set(&mut case.kafka, "session.timeout.ms=300000");
    let router = || Router::new().raw(async |_: Record| {});
    let first = Member::start(&case.kafka, case.settings(), router());
    first.joined().await;
    for joined_for_ms in [500, 2_000, 3_500, 5_000] {
        let second = Member::start(&case.kafka, case.settings(), router());
        tokio::time::sleep(Duration::from_millis(joined_for_ms)).await;
        assert!(second.stop().await.clean);
        let what = format!("one that stopped after {joined_for_ms} ms is gone");
        eventually(&what, WITHIN, || async {
            (case.members().await.len() == 1).then_some(())
        })
        .await;
    }
    case.publish_load(40, 10).await;
    case.all_committed().await;
    assert_eq!(first.stop().await.settled, 40);
}
