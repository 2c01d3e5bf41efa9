//! G6: a clean stop drains, commits and leaves within its deadline, and the next start redelivers nothing settled.

use crate::support::proxy::{BrokerProxy, Passes};
use crate::support::{Case, Gate, Log, Member, Place, WITHIN, place, set};
use evenkeel::consumer::{Assignment, ConsumerSettings, StopWhen, Stopped};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::{eventually, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

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

/// Longer than a test waits: a member that does not leave is not forgotten meanwhile.
const LONG_SESSION: &str = "session.timeout.ms=300000";

/// A stop may take until the rebalance ends, which is long on a slow machine.
fn patient(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.drain_timeout = WITHIN;
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_during_a_rebalance_leaves_the_group_at_once() {
    let Some(mut case) = Case::new("it-g6", 4).await else {
        return;
    };
    // As the client has it by default: a rebalance takes seconds, and has several states to stop in.
    set(&mut case.kafka, "heartbeat.interval.ms=3000");
    set(&mut case.kafka, LONG_SESSION);
    let router = || Router::new().raw(async |_: Record| {});
    let first = Member::start(&case.kafka, case.settings(), router());
    first.joined().await;
    for joined_for_ms in [500, 2_000, 3_500, 5_000] {
        let second = Member::start(&case.kafka, patient(&case), router());
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

/// A member that only answers rebalances, and only while it is polled: until then each waits for it.
fn other_member(case: &Case) -> BaseConsumer {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &case.kafka.brokers)
        .set("group.id", &case.group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("heartbeat.interval.ms", "300")
        .set("session.timeout.ms", "300000")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a member of the group");
    let subscribed = client.subscribe(&[case.topic.as_str()]);
    subscribed.expect("subscribed");
    client
}

/// Polls this member on a thread of its own, until the token is cancelled or it has a partition.
async fn poll(member: &Arc<BaseConsumer>, until_assigned: bool, stop: &CancellationToken) {
    let (member, stop) = (Arc::clone(member), stop.clone());
    let poll = move || {
        let is_assigned = || member.assignment().is_ok_and(|list| list.count() > 0);
        while !(stop.is_cancelled() || until_assigned && is_assigned()) {
            let _ = member.poll(Duration::from_millis(50));
        }
    };
    let polled = tokio::task::spawn_blocking(poll).await;
    polled.expect("the task does not panic");
}

/// In this state the close of librdkafka sends no request to leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_stopped_while_it_joins_again_leaves_the_group() {
    let Some(mut case) = Case::new("it-g6", 1).await else {
        return;
    };
    set(&mut case.kafka, LONG_SESSION);
    let stop = CancellationToken::new();
    // A failure ends the polls, too.
    let _polls_end = stop.clone().drop_guard();
    let owner = Arc::new(other_member(&case));
    let assigned = tokio::time::timeout(WITHIN, poll(&owner, true, &stop)).await;
    assigned.expect("the first member is assigned the partition");

    let mut settings = patient(&case);
    settings.assignment = Assignment::CooperativeSticky;
    let member = Member::start(&case.kafka, settings, slow_router(&Log::new()));
    // It has no partition: the only one stays with its owner, which has yet to be told so.
    member.joined().await;
    let third = other_member(&case);
    eventually("a third member joins", WITHIN, || async {
        (case.members().await.len() == 3).then_some(())
    })
    .await;
    // Long enough to join again, and to be stopped. If it is not, less is shown.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stopping = tokio::spawn(member.stop());
    tokio::time::sleep(Duration::from_secs(1)).await;

    // The rebalance goes on with its owner's answer.
    let (answering, answers_until) = (Arc::clone(&owner), stop.clone());
    let answering = tokio::spawn(async move { poll(&answering, false, &answers_until).await });
    let report = stopping.await.expect("the task does not panic");
    assert!(report.clean, "{report:?}");
    eventually("the one that stopped is gone", WITHIN, || async {
        (case.members().await.len() == 2).then_some(())
    })
    .await;
    stop.cancel();
    answering.await.expect("the task does not panic");
    let closed = tokio::task::spawn_blocking(move || drop((third, owner))).await;
    closed.expect("the clients are closed");
}

/// The brokers answer a first request to join with the id of the member, and hold up each rebalance for it until it joins, leaves
/// or its session ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_stopped_while_it_asks_to_join_holds_up_no_other() {
    let Some((proxy, cluster)) = BrokerProxy::before_kafka().await else {
        return;
    };
    let topic = unique("it-g6");
    let created = cluster.create_topic(&topic, 4).await;
    created.expect("the topic is created");
    let mut case = Case::named(KafkaConfig::new(proxy.address()), topic, 4);
    set(&mut case.kafka, LONG_SESSION);
    let router = || Router::new().raw(async |_: Record| {});
    let first = Member::start(&case.kafka, patient(&case), router());
    first.joined().await;

    let joins = proxy.joins();
    proxy.let_pass(Passes::SlowJoins);
    let second = Member::start(&case.kafka, patient(&case), router());
    if patient(&case).assignment != Assignment::Broker {
        eventually("it asks to join", WITHIN, || async {
            (proxy.joins() > joins).then_some(())
        })
        .await;
    }
    assert!(second.stop().await.clean);

    proxy.let_pass(Passes::Everything);
    let third = Member::start(&case.kafka, patient(&case), router());
    third.joined().await;
    assert!(third.stop().await.clean);
    assert!(first.stop().await.clean);
}
