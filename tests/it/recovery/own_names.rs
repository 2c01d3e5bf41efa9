//! Names of a group's own topics that run together with those of another group: each keeps to what is its own.

use crate::support::{Case, Gate, Log, Member, WITHIN};
use evenkeel::consumer::{Consumer, ConsumerError, ConsumerSettings};
use evenkeel::event::Record;
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaError;
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{eventually, unique};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

type Handled = (String, String);

/// Handlers that log topic and value, and fail while the gate is closed.
fn failing(handled: &Log<Handled>, gate: &Gate) -> Router {
    let (handled, gate) = (handled.clone(), gate.clone());
    Router::new().raw(move |record: Record| {
        let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
        handled.push((record.topic().to_owned(), value));
        let outcome = match gate.is_open() {
            true => Outcome::Done,
            false => Outcome::Retry(HandlerError::transient("not now")),
        };
        std::future::ready(outcome)
    })
}

/// Two groups that have one retry topic.
struct Pair {
    ours: Case,
    theirs: Case,
    retry: String,
}

impl Pair {
    async fn new() -> Option<Self> {
        let theirs = Case::new("it-names", 1).await?;
        let (stem, between) = (unique("g"), unique("eu"));
        let theirs = Case {
            group: format!("{stem}.{between}"),
            ..theirs
        };
        let ours = Case {
            kafka: theirs.kafka.clone(),
            topic: format!("{between}.{}", theirs.topic),
            group: stem,
            partitions: 1,
        };
        ours.create_topic(&ours.topic, 1, &[]).await;
        let retry = retry_topic(&ours.group, &ours.topic);
        assert_eq!(retry, retry_topic(&theirs.group, &theirs.topic));
        Some(Self {
            ours,
            theirs,
            retry,
        })
    }

    fn start(case: &Case, handled: &Log<Handled>, gate: &Gate) -> Member {
        let mut settings = case.settings();
        settings.retry.attempts_max = 1;
        settings.retry.park_delays = vec![Duration::from_millis(200); 10_000];
        settings.retry_topic_retention = Duration::from_secs(1);
        Member::start(&case.kafka, settings, failing(handled, gate))
    }
}

/// Waits until the group has nothing left in the retry topic of what is there now.
async fn settled(case: &Case, retry: &str) {
    let offsets = case.offsets_of(retry, 1);
    let end = offsets.ends().await.get(&0).copied().unwrap_or(0);
    eventually("what is parked is settled", WITHIN, || async {
        (offsets.committed_of(0).await >= end).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_with_ambiguous_names_leave_each_other_alone() {
    let Some(pair) = Pair::new().await else {
        return;
    };
    let (ours, theirs) = (Log::new(), Log::new());
    let (our_gate, their_gate) = (Gate::closed(), Gate::closed());
    let our_member = Pair::start(&pair.ours, &ours, &our_gate);
    let their_member = Pair::start(&pair.theirs, &theirs, &their_gate);
    our_member.joined().await;
    their_member.joined().await;
    pair.theirs
        .publish([pair.theirs.record(Some("k"), "theirs")])
        .await;
    theirs.reach("attempts", 2).await;
    pair.ours
        .publish([pair.ours.record(Some("k"), "ours")])
        .await;
    ours.reach("attempts", 2).await;

    our_gate.open();
    settled(&pair.ours, &pair.retry).await;
    // What is settled is deleted by now, if it ever is; and once more by a member that finds it settled.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(our_member.stop().await.clean);
    let our_member = Pair::start(&pair.ours, &ours, &our_gate);
    our_member.joined().await;
    tokio::time::sleep(Duration::from_secs(3)).await;

    their_gate.open();
    settled(&pair.theirs, &pair.retry).await;
    for (handled, case) in [(ours, &pair.ours), (theirs, &pair.theirs)] {
        let value = if case.topic == pair.ours.topic {
            "ours"
        } else {
            "theirs"
        };
        let own = (case.topic.clone(), value.to_owned());
        let entries = handled.entries();
        assert!(
            entries.iter().all(|entry| *entry == own),
            "{own:?}: {entries:?}"
        );
    }
    assert!(our_member.stop().await.clean);
    let report = their_member.stop().await;
    assert_eq!((report.dead_letters, report.settled), (0, 2), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_colliding_own_topics_does_not_start() {
    let Some(case) = Case::new("it-names-equal", 1).await else {
        return;
    };
    let stem = unique("g");
    let run = |group: String| {
        let settings = ConsumerSettings::new(group, [&case.topic]);
        let router = Router::new().raw(async |_: Record| {});
        let consumer = Consumer::new(case.kafka.clone(), settings, router)
            .expect("the settings of the consumer are valid");
        let stop = CancellationToken::new();
        (tokio::spawn(consumer.run(stop.clone())), stop)
    };
    let (first, stop) = run(format!("{stem}.app"));
    let offsets = Case {
        kafka: case.kafka.clone(),
        topic: case.topic.clone(),
        group: format!("{stem}.app"),
        partitions: 1,
    };
    offsets.publish([offsets.record(Some("k"), "v")]).await;
    offsets.all_committed().await;
    let (second, _stop) = run(format!("{stem}_app"));
    let refused = tokio::time::timeout(WITHIN, second)
        .await
        .expect("it ends in time");
    match refused.expect("the task does not panic") {
        Err(ConsumerError::Kafka(KafkaError::Config(error))) => {
            let error = error.to_string();
            assert!(
                error.contains("group") && error.contains(&format!("{stem}.app")),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    stop.cancel();
    first
        .await
        .expect("the task does not panic")
        .expect("it ends well");
}
