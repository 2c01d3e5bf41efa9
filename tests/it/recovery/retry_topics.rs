//! Retry topics that are closed, gone or late: who waits for that, and who does not.

use crate::control::operator::Operator;
use crate::support::{Case, Gate, Log, Member, WITHIN, guarded};
use evenkeel::consumer::ConsumerSettings;
use evenkeel::control::Scope;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::recovery::retry_topic;
use evenkeel::testing::{JavaProgram, TestKafka, eventually, unique};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_retry_topic_blocks_only_its_own_partitions() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let operator = Operator::of(Case::on(&cluster, "it-retry-closed", 1).await);
    let other = unique("it-retry-open");
    let created = cluster.create_topic(&other, 1).await;
    created.expect("the topic is created");
    let closed = retry_topic(&operator.group, &operator.topic);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &closed];
        acl.run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds")
    };
    let handled = Log::new();
    let router = {
        let handled = handled.clone();
        Router::new().raw(move |record: Record| {
            handled.push(record.topic().to_owned());
            async {}
        })
    };
    let mut settings = operator.settings();
    settings.topics.push(other.clone());
    let member = Member::start(&operator.kafka, settings, router);
    member.joined().await;

    acl("hide").await;
    // When a partition goes on, its retry partition is looked up as at an assignment.
    operator.pause(Scope::Group).await;
    operator.resume(Scope::Group).await;
    let record = |topic: &str| OutgoingRecord {
        topic: topic.to_owned(),
        ..operator.record(Some("k"), "v")
    };
    operator
        .publish([record(&operator.topic), record(&other)])
        .await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.starts_with("1 retry partition"), "{complaint}");
    operator.offsets_of(&other, 1).reach(0, 1).await;
    assert_eq!(handled.entries(), [other]);

    acl("permit").await;
    operator.all_committed().await;
    member.ready_again().await;
    assert!(member.stop().await.clean);
    assert_eq!(handled.len(), 2, "each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_retry_topic_blocks_no_source_commit() {
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
    case.delete_topic(&retry_topic(&case.group, &case.topic))
        .await;
    // Settled now, and there is nothing to commit it to.
    gate.open();
    case.publish([case.record(Some("other"), "works")]).await;
    case.all_committed().await;
    let report = member.stop().await;
    assert!(report.clean, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_deleted_with_parked_records_is_an_alarm() {
    let Some(case) = Case::new("it-retry-deleted", 1).await else {
        return;
    };
    let (handled, gate) = (Log::new(), Gate::closed());
    let mut settings = parks_after(&case, Duration::from_secs(3_600));
    settings.own_topics_interval = Duration::from_secs(3);
    let member = Member::start(
        &case.kafka,
        settings,
        failing(&handled, &gate, &["first", "second"]),
    );
    case.publish(["first", "second"].map(|value| case.record(Some(value), value)))
        .await;
    case.all_committed().await;
    // What waits is counted with the commits.
    tokio::time::sleep(Duration::from_millis(500)).await;
    case.delete_topic(&retry_topic(&case.group, &case.topic))
        .await;
    let complaint = member.complaint("parked_records").await;
    assert!(complaint.contains("2 records of 2 keys"), "{complaint}");
    drop(member);
}

/// Handlers that log each value, and fail with those that begin with one of `fails` while the gate is closed.
fn failing(handled: &Log<String>, gate: &Gate, fails: &'static [&'static str]) -> Router {
    let (handled, gate) = (handled.clone(), gate.clone());
    Router::new().raw(move |record: Record| {
        let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
        let is_named = fails.iter().any(|name| value.starts_with(name));
        let outcome = if is_named && !gate.is_open() {
            Outcome::Retry(HandlerError::transient("not now"))
        } else {
            handled.push(value);
            Outcome::Done
        };
        std::future::ready(outcome)
    })
}

/// Settings that park a record after its first attempt, and try it again after `delay`.
fn parks_after(case: &Case, delay: Duration) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![delay; 1_000];
    settings
}

/// A group on a Kafka that asks for permission. Its handler fails at `first` until `mended` opens.
struct Guarded {
    cluster: TestKafka,
    acl: JavaProgram,
    case: Case,
    retry: String,
    handled: Log<String>,
    mended: Gate,
}

impl Guarded {
    /// A group whose member parked `first` and stopped; none where there is no Kafka.
    async fn new(name: &str) -> Option<Self> {
        let (cluster, acl) = guarded().await?;
        let case = Case::on(&cluster, name, 1).await;
        let retry = retry_topic(&case.group, &case.topic);
        let guarded = Self {
            cluster,
            acl,
            case,
            retry,
            handled: Log::new(),
            mended: Gate::closed(),
        };
        let (member, case) = (guarded.start(), &guarded.case);
        case.publish([case.record(Some("k"), "first")]).await;
        case.offsets().reach(0, 1).await;
        assert!(member.stop().await.clean);
        Some(guarded)
    }

    /// Starts a member.
    fn start(&self) -> Member {
        let router = failing(&self.handled, &self.mended, &["first"]);
        let settings = parks_after(&self.case, Duration::from_millis(300));
        Member::start(&self.case.kafka, settings, router)
    }

    /// Changes the rights on the retry topic.
    async fn acl(&self, what: &str) {
        let arguments = [self.cluster.brokers(), what, &self.retry];
        self.acl
            .run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_retry_topic_blocks_its_partitions_at_start() {
    let Some(guarded) = Guarded::new("it-retry-hidden").await else {
        return;
    };
    let Guarded { case, handled, .. } = &guarded;
    guarded.acl("hide").await;
    let member = guarded.start();
    case.publish([case.record(Some("k"), "second")]).await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.contains(&guarded.retry), "{complaint}");
    assert!(
        complaint.contains("allow it DESCRIBE, READ and WRITE"),
        "{complaint}"
    );
    guarded.mended.open();
    guarded.acl("permit").await;
    case.all_committed().await;
    handled.reach("records", 2).await;
    assert_eq!(handled.entries(), ["first", "second"]);
    member.ready_again().await;

    // Seen and not read: the partition is open by now, and what is parked from now on could not come back.
    guarded.acl("close").await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.contains("READ"), "{complaint}");
    guarded.acl("permit").await;
    member.ready_again().await;
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_retry_topic_blocks_its_partition_and_is_reported() {
    let Some(guarded) = Guarded::new("it-retry-unreadable").await else {
        return;
    };
    let Guarded { case, handled, .. } = &guarded;
    guarded.acl("close").await;
    guarded.mended.open();
    let member = guarded.start();
    case.publish([case.record(Some("k"), "second")]).await;
    let complaint = member.complaint("retry_partitions").await;
    assert!(complaint.contains("allow it DESCRIBE, READ"), "{complaint}");
    assert_eq!(handled.entries(), [""; 0]);
    guarded.acl("permit").await;
    handled.reach("records", 2).await;
    assert_eq!(handled.entries(), ["first", "second"]);
    member.ready_again().await;
    assert!(member.stop().await.clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_topic_created_later_is_used_by_running_members() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let case = Case::on(&cluster, "it-retry-late", 2).await;
    let retry = retry_topic(&case.group, &case.topic);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &retry];
        acl.run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds")
    };
    acl("uncreatable").await;
    let (handled, mended) = (Log::new(), Gate::closed());
    let start = || {
        let router = failing(&handled, &mended, &["first", "later"]);
        Member::start(
            &case.kafka,
            parks_after(&case, Duration::from_millis(300)),
            router,
        )
    };
    let old = start();
    old.joined().await;
    let to = |partition: i32, key: &str, value: &str| OutgoingRecord {
        partition: Some(partition),
        ..case.record(Some(key), format!("{value}-{partition}"))
    };
    case.publish([to(0, "k", "before"), to(1, "k", "before")])
        .await;
    handled.reach("records without a retry topic", 2).await;
    acl("permit").await;
    case.create_topic(&retry, 2, &[("retention.ms", "-1")])
        .await;
    eventually("the running member parks", WITHIN, || async {
        case.publish([to(0, "later", "later"), to(1, "later", "later")])
            .await;
        let parked = case.read(&retry).await;
        let has = |partition| parked.iter().any(|record| record.partition == partition);
        (has(0) && has(1)).then_some(())
    })
    .await;

    // Another member parks, and its partition comes back.
    let new = start();
    new.joined().await;
    case.publish([to(0, "k", "first"), to(1, "k", "first")])
        .await;
    case.all_committed().await;
    assert!(new.stop().await.clean);
    case.publish([to(0, "k", "second"), to(1, "k", "second")])
        .await;
    case.all_committed().await;
    mended.open();
    let of = |value: &'static str| {
        let entries = handled.entries().into_iter();
        entries
            .filter(move |entry| entry.starts_with(value))
            .count()
    };
    eventually("all are handled", WITHIN, || async {
        (of("second") == 2).then_some(())
    })
    .await;
    for partition in 0..2 {
        let entries = handled.entries();
        let at = |value: &str| {
            let value = format!("{value}-{partition}");
            entries.iter().position(|entry| *entry == value)
        };
        assert!(
            at("first").is_some() && at("first") < at("second"),
            "{entries:?}"
        );
    }
    old.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_start_together_all_park() {
    let Some(case) = Case::new("it-retry-race", 4).await else {
        return;
    };
    let (handled, mended) = (Log::new(), Gate::closed());
    let members: Vec<Member> = (0..4)
        .map(|_| {
            let router = failing(&handled, &mended, &["fails"]);
            Member::start(
                &case.kafka,
                parks_after(&case, Duration::from_millis(300)),
                router,
            )
        })
        .collect();
    let fails = |partition: i32| OutgoingRecord {
        partition: Some(partition),
        ..case.record(Some("k"), "fails")
    };
    case.publish((0..4).map(fails)).await;
    case.all_committed().await;
    mended.open();
    handled.reach("records", 4).await;
    for member in members {
        let report = member.stop().await;
        assert_eq!(report.dead_letters, 0, "{report:?}");
    }
}
