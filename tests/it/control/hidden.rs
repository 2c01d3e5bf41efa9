//! A control topic that may not be seen or read: what is paused is not known, and is not handled.

use super::operator::{Operator, logging};
use crate::support::{Case, Log, Member, WITHIN, guarded};
use evenkeel::control::{Scope, control_topic};
use evenkeel::testing::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_control_topic_is_awaited_and_its_pauses_hold() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let case = Operator::of(Case::on(&cluster, "it-control-hidden", 1).await);
    let control = control_topic(&case.group);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &control];
        acl.run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds")
    };
    let handled = Log::new();
    let start = || Member::start(&case.kafka, case.settings(), logging(&handled));
    let member = start();
    member.joined().await;
    case.pause(Scope::Group).await;
    assert!(member.stop().await.clean);
    case.publish([case.record(Some("k"), "v")]).await;

    for closed in ["hide", "close"] {
        acl(closed).await;
        let member = start();
        let complaint = member.complaint("consumer").await;
        if complaint == "joining the group" {
            eventually("it says what it waits for", WITHIN, || async {
                let told = member.complaint("consumer").await;
                told.contains(&control).then_some(())
            })
            .await;
        }
        acl("permit").await;
        member.joined().await;
        eventually("the pause holds", WITHIN, || async {
            (!member.notes().is_empty()).then_some(())
        })
        .await;
        assert_eq!(handled.len(), 0);
        assert!(member.stop().await.clean);
    }

    // Closed while a member runs, it is read anew when it is open again.
    let member = start();
    member.joined().await;
    acl("close").await;
    let complaint = member.complaint("control_topic").await;
    assert!(complaint.contains(&control), "{complaint}");
    acl("permit").await;
    member.ready_again().await;
    case.resume(Scope::Group).await;
    handled.reach("records", 1).await;

    // A member that waits for the permission can be stopped.
    assert!(member.stop().await.clean);
    acl("hide").await;
    let member = start();
    eventually("it says what it waits for", WITHIN, || async {
        let told = member.complaint("consumer").await;
        told.contains(&control).then_some(())
    })
    .await;
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_topic_made_later_is_followed() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let case = Operator::of(Case::on(&cluster, "it-control-late", 1).await);
    let control = control_topic(&case.group);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &control];
        acl.run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds")
    };
    acl("uncreatable").await;
    let handled = Log::new();
    let member = Member::start(&case.kafka, case.settings(), logging(&handled));
    member.joined().await;
    case.publish([case.record(Some("k"), "v")]).await;
    handled.reach("records", 1).await;
    acl("permit").await;
    let created = cluster.create_topic(&control, 1).await;
    created.expect("the topic is created");
    case.pause(Scope::Group).await;
    assert!(member.stop().await.clean);
}
