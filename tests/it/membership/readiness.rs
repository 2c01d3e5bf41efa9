//! Readiness says what is so: a member without a place in its group is not ready, and what has passed keeps none from it.

use crate::support::{Case, Log, Member, WITHIN, guarded, set};
use evenkeel::consumer::Assignment;
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::{JavaProgram, TestKafka, eventually, required, unique};
use std::time::{Duration, Instant};

fn router(handled: &Log<String>) -> Router {
    let handled = handled.clone();
    Router::new().raw(move |record: Record| {
        handled.push(record.topic().to_owned());
        std::future::ready(())
    })
}

async fn acl(acl: &JavaProgram, cluster: &TestKafka, what: &str, of: &str) {
    let done = acl.run(&[cluster.brokers(), what, of], WITHIN).await;
    done.expect("the ACL program succeeds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_partition_readable_again_is_ready_without_records() {
    let Some((cluster, program)) = guarded().await else {
        return;
    };
    let case = Case::on(&cluster, "it-quiet", 1).await;
    let other = unique("it-busy");
    let created = cluster.create_topic(&other, 1).await;
    created.expect("the topic is created");
    let handled = Log::new();
    let mut settings = case.settings();
    settings.topics.push(other.clone());
    let member = Member::start(&case.kafka, settings, router(&handled));
    member.joined().await;
    acl(&program, &cluster, "close", &case.topic).await;
    let complaint = member.complaint("consumer").await;
    assert!(complaint.contains("cannot be read"), "{complaint}");
    // Not ready for as long as that lasts, though another partition is read.
    let mut record = case.record(None, "v");
    record.topic = other;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(14) {
        case.publish([record.clone()]).await;
        assert!(!member.health.not_ready().is_empty(), "{complaint}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    acl(&program, &cluster, "permit", &case.topic).await;
    member.ready_within(Duration::from_secs(40)).await;
    case.publish([case.record(None, "v")]).await;
    case.all_committed().await;
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_member_is_not_ready_until_admitted() {
    let Some((cluster, program)) = guarded().await else {
        return;
    };
    let mut case = Case::on(&cluster, "it-expelled", 1).await;
    set(&mut case.kafka, "session.timeout.ms=6000");
    let handled = Log::new();
    // With KIP-848 the client fails for good.
    let mut settings = case.settings();
    settings.assignment = Assignment::CooperativeSticky;
    let member = Member::start(&case.kafka, settings, router(&handled));
    member.joined().await;
    acl(&program, &cluster, "expel", &case.group).await;
    member.complaint("consumer").await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        assert!(!member.health.not_ready().is_empty());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    acl(&program, &cluster, "admit", &case.group).await;
    case.publish([case.record(None, "v")]).await;
    handled.reach("records", 1).await;
    member.ready_again().await;
    case.all_committed().await;
    member.stop().await;
}

/// All the other tests run on several threads.
#[test]
fn a_consumer_runs_on_a_runtime_of_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let Some(case) = Case::new("it-one-thread", 3).await else {
            return;
        };
        let handled = Log::new();
        let member = Member::start(&case.kafka, case.settings(), router(&handled));
        case.publish_load(2_000, 50).await;
        handled.reach("records", 2_000).await;
        case.all_committed().await;
        let report = member.stop().await;
        assert!(report.clean, "{report:?}");
        assert_eq!(report.settled, 2_000, "{report:?}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_reported_with_its_cause() {
    let Some(cluster) = required(TestKafka::start_with(&[]).await) else {
        return;
    };
    let case = Case::on(&cluster, "it-outage", 1).await;
    let member = Member::start(&case.kafka, case.settings(), router(&Log::new()));
    member.joined().await;
    drop(cluster);
    eventually("the cause is told", WITHIN, || async {
        let not_ready = member.health.not_ready();
        let mut reasons = not_ready.iter().map(|(_, reason)| reason);
        let told = |reason: &String| {
            reason.contains("no broker can be reached: ") && reason.contains("Connection refused")
        };
        reasons.any(told).then_some(())
    })
    .await;
}
