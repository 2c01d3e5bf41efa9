//! Members to which the brokers assign nothing are ready, and bounded runs of theirs end.

use crate::support::{Case, Member, WITHIN};
use evenkeel::consumer::{Assignment, ConsumerSettings, StopWhen, Stopped};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use evenkeel::testing::eventually;
use std::time::Duration;

fn settings(case: &Case, bound: StopWhen) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.assignment = Assignment::Broker;
    settings.stop_when = bound;
    settings
}

fn idle() -> Router {
    Router::new().raw(async |_: Record| {})
}

#[tokio::test(flavor = "multi_thread")]
async fn members_without_partitions_are_ready_and_their_bounded_runs_end() {
    let Some(case) = Case::new("it-surplus", 1).await else {
        return;
    };
    let owner = Member::start(&case.kafka, settings(&case, StopWhen::Endless), idle());
    owner.joined().await;
    case.publish_load(3, 3).await;
    case.all_committed().await;
    let surplus = Member::start(&case.kafka, settings(&case, StopWhen::Endless), idle());
    surplus.joined().await;
    for bound in [StopWhen::Idle(Duration::from_secs(1)), StopWhen::UntilEnd] {
        let bounded = Member::start(&case.kafka, settings(&case, bound), idle());
        let report = bounded.ended().await;
        assert_eq!(
            (report.stopped, report.received),
            (Stopped::BoundReached, 0)
        );
    }
    // The partition goes to it when its owner leaves.
    assert!(owner.stop().await.clean);
    case.publish_load(3, 3).await;
    case.all_committed().await;
    assert_eq!(surplus.stop().await.settled, 3);
}

async fn waits_for_its_id(member: &Member) {
    eventually("it says what it waits for", WITHIN, || async {
        let reasons = member.health.not_ready();
        let mut reasons = reasons.iter().map(|(_, reason)| reason);
        reasons
            .any(|why| why.contains("instance id one"))
            .then_some(())
    })
    .await;
}

/// The classic protocol has the newer one take the older one's place.
#[tokio::test(flavor = "multi_thread")]
async fn a_member_waits_for_its_instance_id_to_be_free() {
    let Some(case) = Case::new("it-instance", 2).await else {
        return;
    };
    let named = || {
        let mut named = settings(&case, StopWhen::Endless);
        named.instance_id = Some("one".to_owned());
        named
    };
    let first = Member::start(&case.kafka, named(), idle());
    first.joined().await;
    let second = Member::start(&case.kafka, named(), idle());
    waits_for_its_id(&second).await;
    assert!(first.stop().await.clean);
    case.publish_load(10, 5).await;
    case.all_committed().await;
    let report = second.stop().await;
    assert_eq!((report.settled, report.clean), (10, true), "{report:?}");

    // A stop ends the wait.
    let first = Member::start(&case.kafka, named(), idle());
    first.joined().await;
    let second = Member::start(&case.kafka, named(), idle());
    waits_for_its_id(&second).await;
    assert_eq!(second.stop().await.received, 0);
    first.stop().await;
}
