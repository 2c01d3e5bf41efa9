//! Retry topics that are closed or gone: who waits for that, and who does not.

use crate::control::desk::Desk;
use crate::support::{Case, Gate, Log, Member, WITHIN, guarded};
use evenkeel::control::Scope;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{eventually, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_that_is_closed_keeps_its_own_partitions_waiting_and_no_others() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let desk = Desk::of(Case::on(&cluster, "it-retry-closed", 1).await);
    let other = unique("it-retry-open");
    let created = cluster.create_topic(&other, 1).await;
    created.expect("the topic is created");
    let closed = retry_topic(&desk.group, &desk.topic);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &closed];
        acl.run(&arguments, WITHIN).await.expect("done")
    };
    let handled = Log::new();
    let router = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            handled.push(record.topic().to_owned());
            async {}
        })
    };
    let mut settings = desk.settings();
    settings.topics.push(other.clone());
    let member = Member::start(&desk.kafka, settings, router);
    member.joined().await;

    acl("hide").await;
    // When a partition goes on, its retry partition is looked up as at an assignment.
    desk.pause(Scope::Group).await;
    desk.resume(Scope::Group).await;
    let record = |topic: &str| OutgoingRecord {
        topic: topic.to_owned(),
        ..desk.record(Some("k"), "v")
    };
    desk.publish([record(&desk.topic), record(&other)]).await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.starts_with("1 retry partition"), "{complaint}");
    desk.offsets_of(&other, 1).reach(0, 1).await;
    assert_eq!(handled.entries(), [other]);

    acl("permit").await;
    desk.all_committed().await;
    eventually("it is ready again", WITHIN, || async {
        member.health.not_ready().is_empty().then_some(())
    })
    .await;
    assert!(member.stop().await.clean);
    assert_eq!(handled.len(), 2, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_that_is_gone_keeps_its_source_from_no_commit() {
    let Some(case) = Case::new("it-retry-gone", 1).await else {
        return;
    };
    let (gate, attempts) = (Gate::closed(), Log::new());
    let router = {
        let (gate, attempts) = (gate.clone(), attempts.clone());
        Router::new().raw(move |record: Record| {
            let (gate, attempts) = (gate.clone(), attempts.clone());
            let value = record.value().unwrap_or_default().to_vec();
            async move {
                attempts.push(value.clone());
                if value != b"fails" {
                    return Outcome::Done;
                }
                if attempts.len() == 1 {
                    return Outcome::Retry(HandlerError::transient("not now"));
                }
                gate.pass().await;
                Outcome::Done
            }
        })
    };
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::ZERO; 9];
    let member = Member::start(&case.kafka, settings, router);
    case.publish([case.record(Some("k"), "fails")]).await;
    attempts.reach("attempts", 2).await;
    delete(&case, &retry_topic(&case.group, &case.topic)).await;
    // Settled now, and there is nothing to commit it to.
    gate.open();
    case.publish([case.record(Some("other"), "works")]).await;
    case.all_committed().await;
    let report = member.stop().await;
    assert!(report.clean, "{report:?}");
}

async fn delete(case: &Case, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &case.kafka.brokers)
        .create()
        .expect("a client");
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    let deleted = deleted.expect("the cluster answers");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
}
