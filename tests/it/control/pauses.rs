//! Pauses: what they hold, and what goes on, and comes back, after them.

use super::operator::{Operator, in_order_by_key, logging, of};
use crate::support::{Case, Log, Member, Place, WITHIN};
use evenkeel::consumer::{Assignment, ConsumerSettings, StopWhen};
use evenkeel::control::{Action, CommandOutcome, Scope, control_topic};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_resumes_only_after_its_settled_offsets_are_committed() {
    let cluster: MockCluster<'static, DefaultProducerContext> =
        MockCluster::new(1).expect("the mock cluster starts");
    let kafka = KafkaConfig::new(cluster.bootstrap_servers());
    let case = Operator::of(Case::named(kafka, unique("it-control-refused"), 1));
    for topic in [&case.topic, &control_topic(&case.group)] {
        cluster
            .create_topic(topic, 1, 1)
            .expect("the topic is created");
    }
    let handled = Log::new();
    let mut settings = case.settings();
    // Commits come with pauses and resumes alone.
    settings.commit_interval = WITHIN * 10;
    let member = Member::start(&case.kafka, settings, logging(&handled));
    case.publish_rounds(&[0], 0..5).await;
    handled.reach("records handled", 5).await;
    let refusals = [Code::RD_KAFKA_RESP_ERR_INVALID_COMMIT_OFFSET_SIZE; 3];
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refusals);
    let scope = case.partition_scope(0);
    case.pause(scope.clone()).await;
    case.resume(scope).await;
    assert_eq!(case.offsets().committed_of(0).await, 5);
    case.publish_rounds(&[0], 5..6).await;
    handled.reach("records handled", 6).await;
    assert!(member.stop().await.clean);
    assert_eq!(handled.len(), 6, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moved_while_paused_is_handled_when_it_returns() {
    let Some(case) = Operator::new(2).await else {
        return;
    };
    let handled = Log::new();
    let start = || Member::start(&case.kafka, case.settings(), logging(&handled));
    let first = start();
    first.joined().await;
    case.pause(Scope::Group).await;
    let second = start();
    eventually("one partition moves", WITHIN, || async {
        (second.notes().len() == 1).then_some(())
    })
    .await;
    case.resume(Scope::Group).await;
    assert!(second.stop().await.clean);
    case.publish_rounds(&[0, 1], 0..5).await;
    handled.reach("records handled", 10).await;
    case.all_committed().await;
    assert!(first.stop().await.clean);
    assert_eq!(handled.len(), 10, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_run_is_not_idle() {
    // Records that were paused take a moment to come.
    const IDLE: Duration = Duration::from_secs(2);
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let handled = Log::new();
    let run = |idle| {
        let mut settings = case.settings();
        settings.stop_when = StopWhen::Idle(idle);
        Member::start(&case.kafka, settings, logging(&handled))
    };
    run(IDLE).ended().await;
    let scope = Scope::Group;
    let pause = Action::Pause {
        scope: scope.clone(),
    };
    case.command(pause).await;
    let member = run(IDLE);
    member.joined().await;
    case.publish_rounds(&[0], 0..5).await;
    // Long enough for it to end, were it idle.
    tokio::time::sleep(IDLE * 2).await;
    case.command(Action::Resume { scope }).await;
    assert_eq!(member.ended().await.settled, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_to_the_end_waits_for_what_is_paused() {
    let Some(case) = Operator::new(2).await else {
        return;
    };
    let handled = Log::new();
    let run = |bound: StopWhen| {
        let mut settings: ConsumerSettings = case.settings();
        settings.stop_when = bound;
        Member::start(&case.kafka, settings, logging(&handled))
    };
    case.publish_rounds(&[0, 1], 0..10).await;
    let before = run(StopWhen::Records(5));
    before.ended().await;
    let rest = 20 - handled.len();
    let scope = case.partition_scope(1);
    case.command(Action::Pause {
        scope: scope.clone(),
    })
    .await;
    let member = run(StopWhen::UntilEnd);
    eventually("the other partition is done", WITHIN, || async {
        (of(&handled, 0).len() == 10).then_some(())
    })
    .await;
    assert!(handled.len() < 20);
    case.command(Action::Resume { scope }).await;
    let report = member.ended().await;
    assert_eq!(report.settled, rest as u64);
    let mut times: BTreeMap<Place, usize> = BTreeMap::new();
    for (_, place) in handled.entries() {
        *times.entry(place).or_default() += 1;
    }
    assert!(
        times.len() == 20 && times.values().all(|times| *times == 1),
        "{times:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_hold_where_the_brokers_assign() {
    let Some(case) = Operator::new(4).await else {
        return;
    };
    let handled = Log::new();
    let mut settings = case.settings();
    settings.assignment = Assignment::Broker;
    let start = || Member::start(&case.kafka, settings.clone(), logging(&handled));
    let members = [start(), start()];
    for member in &members {
        member.joined().await;
    }
    let scope = case.partition_scope(1);
    case.pause(scope.clone()).await;
    let record = case.position(1, 3);
    let (skip, _) = case.command(Action::Skip { record }).await;
    case.publish_rounds(&[0, 1, 2, 3], 0..10).await;
    handled
        .reach("records beside the paused partition", 30)
        .await;
    // It moves while it is paused, and stays so.
    let [first, second] = members;
    assert!(first.stop().await.clean);
    assert_eq!(of(&handled, 1), []);
    case.resume(scope).await;
    assert_eq!(
        case.acknowledged(&skip, &[1]).await,
        [CommandOutcome::Skipped]
    );
    case.all_committed().await;
    assert!(second.stop().await.clean);
    assert_eq!(handled.len(), 39, "each once, but the skipped one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_releases_a_record_waiting_for_its_attempt() {
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let attempts = Log::new();
    let router = {
        let attempts = attempts.clone();
        Router::new().raw(move |record: Record| {
            attempts.push(record.offset());
            async { Err::<(), _>(HandlerError::from(std::io::Error::other("not now"))) }
        })
    };
    let mut settings = case.settings();
    settings.retry.backoff.initial = Duration::from_secs(600);
    settings.retry.backoff.max = Duration::from_secs(600);
    settings.revoke_timeout = WITHIN * 2;
    let member = Member::start(&case.kafka, settings, router);
    case.publish_rounds(&[0], 0..1).await;
    attempts.reach("attempts", 1).await;
    let scope = case.partition_scope(0);
    // It would not be drained before its next attempt is due, and that is later than the test waits.
    case.pause(scope.clone()).await;
    assert_eq!(attempts.len(), 1);
    case.command(Action::Resume { scope }).await;
    attempts.reach("attempts after the resume", 2).await;
    // The record waits for its next attempt again: it is not settled.
    assert!(!member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_holds_parked_records_until_resumed_in_order() {
    const DELAY: Duration = Duration::from_millis(300);
    let Some(case) = Operator::new(1).await else {
        return;
    };
    let (attempts, done, works) = (Log::new(), Log::new(), Arc::new(AtomicBool::new(false)));
    let router = {
        let (attempts, done, works) = (attempts.clone(), done.clone(), Arc::clone(&works));
        Router::new().raw(move |record: Record| {
            attempts.push(Instant::now());
            let result = match works.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err(HandlerError::from(std::io::Error::other("not now"))),
            };
            if result.is_ok() {
                let value = record.value().unwrap_or_default();
                done.push(String::from_utf8_lossy(value).into_owned());
            }
            async { result }
        })
    };
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![DELAY; 1_000];
    let member = Member::start(&case.kafka, settings, router);
    // Rounds 0, 7, 14 have one key.
    case.publish_rounds(&[0], 0..21).await;
    attempts.reach("attempts of parked records", 30).await;
    let scope = case.partition_scope(0);
    case.pause(scope.clone()).await;
    let before = attempts.len();
    // Several rounds of parking would be due in that time.
    tokio::time::sleep(DELAY * 5).await;
    assert_eq!(attempts.len(), before, "tried while it was paused");

    works.store(true, Ordering::Relaxed);
    case.resume(scope).await;
    done.reach("records handled", 21).await;
    case.all_committed().await;
    let done: Vec<i64> = done
        .entries()
        .iter()
        .map(|at| at.parse().expect("a number"))
        .collect();
    in_order_by_key(&done);
    assert_eq!(done.len(), 21, "each once");
    assert!(member.stop().await.clean);
}
