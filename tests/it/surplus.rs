//! Members to which the brokers assign nothing are ready, and bounded runs of theirs end.

use crate::support::{Case, Member};
use evenkeel::consumer::{Assignment, Bound, ConsumerSettings, Stopped};
use evenkeel::event::Record;
use evenkeel::handler::Router;
use std::time::Duration;

fn settings(case: &Case, bound: Bound) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.assignment = Assignment::Broker;
    settings.bound = bound;
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
    let owner = Member::start(&case.kafka, settings(&case, Bound::Endless), idle());
    owner.joined().await;
    case.publish_load(3, 3).await;
    case.all_committed().await;
    let surplus = Member::start(&case.kafka, settings(&case, Bound::Endless), idle());
    surplus.joined().await;
    for bound in [Bound::Idle(Duration::from_secs(1)), Bound::UntilEnd] {
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
