//! Several consumers in one process that report to one health: none hides what another reports, and the end of one leaves the
//! others ready and watched. On the mock cluster.

use crate::support::{Case, Log, Member, WITHIN, set};
use evenkeel::consumer::Consumer;
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::telemetry::Health;
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use std::time::Duration;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// A topic and a group on this cluster.
fn case(cluster: &Cluster) -> Case {
    let topic = unique("it-together");
    cluster
        .create_topic(&topic, 1, 1)
        .expect("the topic is created");
    Case::named(KafkaConfig::new(cluster.bootstrap_servers()), topic, 1)
}

fn start(case: &Case, health: &Health, router: Router) -> Member {
    let consumer = Consumer::new(case.kafka.clone(), case.settings(), router);
    Member::run(consumer.expect("settings that can be used"), health.clone())
}

fn idle() -> Router {
    Router::new().raw(async |_: Record| {})
}

/// Waits until these components, and no others, are ready.
async fn ready(health: &Health, components: &[String]) {
    eventually("all are ready", WITHIN, || async {
        let known = health.components();
        let are_known = components.iter().all(|name| known.contains(name));
        (are_known && health.not_ready().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_consumers_end_leaves_the_other_ready_and_watched() {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let (first, second, health) = (case(&cluster), case(&cluster), Health::default());
    let of = |case: &Case| format!("consumer {}", case.group);
    let stays = start(&first, &health, idle());
    let ends = start(&second, &health, idle());
    ready(&health, &[of(&first), of(&second)]).await;
    assert_eq!(health.loops().len(), 2);
    assert!(ends.stop().await.clean);
    assert!(health.not_ready().is_empty(), "{health:?}");
    assert_eq!(
        health.loops(),
        [format!("consumer_poll {}", first.group)],
        "the one that runs is still watched"
    );
    assert!(!health.components().contains(&of(&second)));
    assert!(stays.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_consumers_complaint_stays_visible_while_another_starts() {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let (first, second, health) = (case(&cluster), case(&cluster), Health::default());
    let refused = Router::new().raw(async |_: Record| {
        Outcome::Retry(HandlerError::outage("refused").dependency("provider"))
    });
    let down = start(&first, &health, refused);
    down.joined().await;
    first.publish_load(20, 20).await;
    let complaint = down.complaint("consumer").await;
    assert!(complaint.contains("provider"), "{complaint}");
    let other = start(&second, &health, idle());
    ready_but(&health, &second, &first).await;
    assert!(other.stop().await.clean);
    let not_ready = health.not_ready();
    assert_eq!(not_ready.len(), 1, "{not_ready:?}");
    assert!(not_ready[0].1.contains("provider"), "{not_ready:?}");
    drop(down);
}

/// Waits until the consumer of `well` has joined, and checks that the other one's complaint stands all the time.
async fn ready_but(health: &Health, well: &Case, ill: &Case) {
    let (well, ill) = (
        format!("consumer {}", well.group),
        format!("consumer {}", ill.group),
    );
    eventually("the other one is ready", WITHIN, || async {
        let not_ready = health.not_ready();
        assert!(
            not_ready.iter().any(|(name, _)| *name == ill),
            "{not_ready:?}"
        );
        let is_known = health.components().contains(&well);
        (is_known && not_ready.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_of_one_group_are_distinguished() {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let (mut case, health) = (case(&cluster), Health::default());
    set(&mut case.kafka, "session.timeout.ms=6000");
    let name = format!("consumer {}", case.group);
    let first = start(&case, &health, idle());
    ready(&health, std::slice::from_ref(&name)).await;
    let second = start(&case, &health, idle());
    ready(&health, &[name.clone(), format!("{name} #2")]).await;
    assert!(first.stop().await.clean);
    let handled = Log::new();
    assert_eq!(health.loops(), [format!("consumer_poll {} #2", case.group)]);
    let log = handled.clone();
    let third = start(
        &case,
        &health,
        Router::new().raw(move |_: Record| {
            log.push(());
            std::future::ready(())
        }),
    );
    ready(&health, &[name.clone(), format!("{name} #2")]).await;
    assert!(second.stop().await.clean);
    case.publish_load(1, 1).await;
    handled.reach("records of the one that is left", 1).await;
    assert!(third.stop().await.clean);
    assert!(health.components().is_empty(), "{health:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_failed_shows_until_it_runs_again() {
    let cluster = Cluster::new(1).expect("the mock cluster starts");
    let (case, health) = (case(&cluster), Health::default());
    let mut settings = case.settings();
    settings.startup_timeout = Duration::from_secs(1);
    let nowhere = KafkaConfig::new("127.0.0.1:1");
    let consumer = Consumer::new(nowhere, settings, idle());
    let consumer = consumer.expect("settings that can be used");
    let stop = tokio_util::sync::CancellationToken::new();
    let failed = consumer.with_health(health.clone()).run(stop).await;
    let error = failed.expect_err("nobody listens there").to_string();
    let name = format!("consumer {}", case.group);
    assert_eq!(
        health.not_ready(),
        [(name.clone(), format!("ended: {error}"))]
    );
    let member = start(&case, &health, idle());
    ready(&health, &[name]).await;
    assert!(member.stop().await.clean);
}
