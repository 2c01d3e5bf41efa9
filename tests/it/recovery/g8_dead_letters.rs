//! G8: where a dead letter cannot be written as it should, or should not be: nothing is lost, nothing is skipped, and an alarm
//! is raised and cleared.

use crate::support::memory::noise;
use crate::support::{Case, Log, Member, WITHIN, guarded};
use evenkeel::consumer::ConsumerSettings;
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::{HandlerError, Outcome, Router};
use evenkeel::kafka::KafkaConfig;
use evenkeel::kafka::reader::LogRecord;
use evenkeel::recovery::{DeadLetter, DeadLetterTopic, FloodGuardPolicy, retry_topic};
use evenkeel::testing::{eventually, unique};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr as Code};
use std::time::Duration;

/// Handles what begins with `good`, and refuses all else with a message of `message_bytes`.
fn router(handled: &Log<String>, message_bytes: usize) -> Router {
    let handled = handled.clone();
    Router::new().raw(move |record: Record| {
        let value = record.value().unwrap_or_default();
        let outcome = if value.starts_with(b"good") {
            handled.push(String::from_utf8_lossy(value).into_owned());
            Outcome::Done
        } else {
            let digits = noise(message_bytes / 2, 0).into_iter();
            let message: String = digits.map(|byte| format!("{byte:02x}")).collect();
            Outcome::Retry(HandlerError::permanent(message))
        };
        std::future::ready(outcome)
    })
}

/// Settings that try again soon.
fn settings(case: &Case) -> ConsumerSettings {
    let mut settings = case.settings();
    settings.retry.backoff.max = Duration::from_millis(200);
    settings.drain_timeout = Duration::from_millis(200);
    settings
}

fn letters_of(case: &Case) -> String {
    format!("dlq.{}.{}", case.group, case.topic)
}

/// A record of partition 0.
fn record(case: &Case, key: &str, value: impl Into<bytes::Bytes>) -> OutgoingRecord {
    OutgoingRecord {
        partition: Some(0),
        ..case.record(Some(key), value)
    }
}

fn text(letter: &LogRecord, name: &str) -> String {
    let value = letter.headers.last(name).unwrap_or_default();
    String::from_utf8(value.to_vec()).expect("headers that we write are text")
}

/// Waits until that many letters are written: the last of them are on their way when a flood is stopped.
async fn letters_reach(case: &Case, letters: usize) {
    eventually(&format!("{letters} letters"), WITHIN, || async {
        (case.read(&letters_of(case)).await.len() >= letters).then_some(())
    })
    .await;
}

/// It takes no other with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_dead_letter_is_shortened_or_a_reference() {
    let Some(case) = Case::new("it-g8-large", 1).await else {
        return;
    };
    let limit = [("max.message.bytes", "10000")];
    case.create_topic(&letters_of(&case), 1, &limit).await;
    // Whole with the message, whole without it, and neither.
    let sizes = [100, 8_900, 50_000];
    let value = |n: usize| noise(sizes[n % sizes.len()], n as u64);
    let records = (0..60).map(|n| record(&case, &format!("k{n}"), value(n)));
    case.publish(records).await;

    let member = Member::start(&case.kafka, settings(&case), router(&Log::new(), 1_000));
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.dead_letters), (60, 60));

    let letters = case.read(&letters_of(&case)).await;
    assert_eq!(letters.len(), 60);
    for letter in letters {
        let n: usize = text(&letter, "__dlq.errors.offset")
            .parse()
            .expect("an offset is a number");
        let message = text(&letter, "__dlq.errors.message").len();
        let refers = DeadLetter::read(letter.headers.iter()).is_reference;
        let value = Some(value(n)).filter(|_| !refers);
        assert_eq!(letter.value, value, "{n}");
        assert_eq!(letter.key, Some(format!("k{n}").into_bytes()));
        let expected = [(1_000, false), (0, false), (1_000, true)][n % sizes.len()];
        assert_eq!((message, refers), expected, "{n}");
    }
}

/// The dead letter is complete then: its message is not shortened.
#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_dead_letter_topic_stops_its_partition_until_permitted() {
    let Some((cluster, acl)) = guarded().await else {
        return;
    };
    let case = Case::on(&cluster, "it-g8-forbidden", 2).await;
    let letters = letters_of(&case);
    let acl = async |what: &str| {
        let arguments = [cluster.brokers(), what, &letters];
        acl.run(&arguments, WITHIN)
            .await
            .expect("the ACL program succeeds")
    };

    let handled = Log::new();
    let member = Member::start(&case.kafka, settings(&case), router(&handled, 1_000));
    member.joined().await;
    acl("forbid").await;
    case.publish([
        record(&case, "a", "good 1"),
        record(&case, "b", "bad"),
        record(&case, "a", "good 2"),
    ])
    .await;
    let complaint = member.complaint("dead_letters").await;
    assert!(
        complaint.contains("ACL") && complaint.contains(&case.topic),
        "{complaint}"
    );
    handled.reach("good records", 2).await;
    let offsets = case.offsets();
    offsets.reach(0, 1).await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.dead_letters), (2, 0));

    let member = Member::start(&case.kafka, settings(&case), router(&handled, 1_000));
    member.complaint("dead_letters").await;
    assert_eq!(offsets.committed_of(0).await, 1);
    acl("permit").await;
    offsets.reach(0, 3).await;
    member.ready_again().await;
    assert_eq!(member.stop().await.dead_letters, 1);
    let letters = case.read(&letters).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].value.as_deref(), Some(&b"bad"[..]));
    assert_eq!(text(&letters[0], "__dlq.errors.message").len(), 1_000);
    assert_eq!(handled.len(), 2, "nothing was handled again");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_rejection_for_size_makes_a_dead_letter_smaller() {
    let cluster: MockCluster<'static, DefaultProducerContext> =
        MockCluster::new(1).expect("the mock cluster starts");
    for (refusal, is_of_size) in [
        (Code::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, true),
        (Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, false),
        (Code::RD_KAFKA_RESP_ERR_INVALID_RECORD, false),
        (Code::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, false),
    ] {
        let topic = unique("it-g8-refused");
        let case = Case::named(KafkaConfig::new(cluster.bootstrap_servers()), topic, 1);
        let letters = letters_of(&case);
        for topic in [&case.topic, &letters] {
            cluster
                .create_topic(topic, 1, 1)
                .expect("the topic is created");
        }
        case.publish([record(&case, "k", "bad")]).await;
        cluster.request_errors(RDKafkaApiKey::Produce, &[refusal]);
        let member = Member::start(&case.kafka, settings(&case), router(&Log::new(), 100));
        case.all_committed().await;
        assert_eq!(member.stop().await.dead_letters, 1);
        let letters = case.read(&letters).await;
        assert_eq!(letters.len(), 1);
        let message = text(&letters[0], "__dlq.errors.message");
        assert_eq!(message.is_empty(), is_of_size, "{refusal:?}");
    }
}

/// A restart goes on with every record.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_flood_stops_the_member_and_loses_nothing() {
    const RECORDS: usize = 250;
    let Some(case) = Case::new("it-g8-flood", 1).await else {
        return;
    };
    let bad = |n: usize| record(&case, &format!("k{n}"), format!("bad {n}"));
    case.publish((0..RECORDS).map(bad)).await;

    let member = Member::start(&case.kafka, settings(&case), router(&Log::new(), 2));
    let complaint = member.complaint("dead_letters").await;
    assert!(
        complaint.contains("dead-letter flood: 100 records in a row")
            && complaint.contains(&format!("evenkeel dlq list --group {}", case.group)),
        "{complaint}"
    );
    letters_reach(&case, 100).await;
    let report = member.stop().await;
    assert_eq!((report.settled, report.dead_letters), (100, 100));
    assert_eq!(case.read(&letters_of(&case)).await.len(), 100);

    let member = Member::start(&case.kafka, settings(&case), router(&Log::new(), 2));
    member.complaint("dead_letters").await;
    letters_reach(&case, 200).await;
    assert_eq!(member.stop().await.dead_letters, 100);

    let mut settings = settings(&case);
    settings.flood_guard = FloodGuardPolicy::OFF;
    let member = Member::start(&case.kafka, settings, router(&Log::new(), 2));
    case.all_committed().await;
    assert!(member.health.not_ready().is_empty());
    assert_eq!(member.stop().await.dead_letters as usize, RECORDS - 200);
    let letters = case.read(&letters_of(&case)).await;
    let mut offsets: Vec<usize> = letters
        .iter()
        .map(|letter| {
            text(letter, "__dlq.errors.offset")
                .parse()
                .expect("an offset is a number")
        })
        .collect();
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(0..RECORDS), "each record once");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_topic_takes_all_dead_letters_of_a_group() {
    let Some(case) = Case::new("it-g8-one", 3).await else {
        return;
    };
    let other = Case::new("it-g8-one", 5).await.expect("the same Kafka");
    let one = unique("letters");
    let mut settings = settings(&case);
    settings.topics.push(other.topic.clone());
    settings.dead_letter_topic = DeadLetterTopic::One(one.clone());
    case.publish([case.record(Some("k"), "bad")]).await;
    other.publish([other.record(Some("k"), "bad")]).await;

    let member = Member::start(&case.kafka, settings, router(&Log::new(), 2));
    case.all_committed().await;
    let other_offsets = case.offsets_of(&other.topic, 5);
    eventually("both are committed", WITHIN, || async {
        let committed = other_offsets.committed().await?;
        committed.values().any(|offset| *offset == 1).then_some(())
    })
    .await;
    assert_eq!(member.stop().await.dead_letters, 2);
    let letters = case.read(&one).await;
    let mut sources: Vec<String> = letters
        .iter()
        .map(|letter| text(letter, "__dlq.errors.topic"))
        .collect();
    sources.sort_unstable();
    let mut expected = [case.topic.clone(), other.topic.clone()];
    expected.sort_unstable();
    assert_eq!(sources, expected);
    assert_eq!(
        letters[0].partition, letters[1].partition,
        "a key has one partition"
    );
    let counts = case
        .admin()
        .await
        .partition_counts(&[one, letters_of(&case)])
        .await;
    let counts: Vec<usize> = counts
        .expect("the brokers know the topics")
        .into_values()
        .collect();
    assert_eq!(counts, [5], "the larger of the two, and no other topic");
}

/// A raw handler that reads no headers costs a dead letter none.
#[tokio::test(flavor = "multi_thread")]
async fn records_taken_without_headers_leave_with_them() {
    let Some(case) = Case::new("it-g8-headers", 1).await else {
        return;
    };
    let router = Router::new().raw(|record: Record| {
        assert_eq!(record.headers().count(), 0);
        std::future::ready(match record.value() {
            Some(b"later") => Outcome::Retry(HandlerError::transient("not now")),
            _ => Outcome::Retry(HandlerError::permanent("bad")),
        })
    });
    let mut settings = case.settings();
    settings.headers = evenkeel::consumer::RecordHeaders::Skip;
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3600)];
    let member = Member::start(&case.kafka, settings, router);
    let record = |key: &str, value: &str| {
        let mut record = case.record(Some(key), value.to_owned());
        record.headers.push("ce_id", Some(key.as_bytes()));
        record.headers.push("empty", None);
        record
    };
    // The last one waits behind the one before.
    let records = [record("a", "bad"), record("b", "later"), record("b", "bad")];
    case.publish(records).await;
    case.all_committed().await;
    let report = member.stop().await;
    assert_eq!((report.dead_letters, report.parked), (1, 2), "{report:?}");
    let letters = format!("dlq.{}.{}", case.group, case.topic);
    for topic in [letters, retry_topic(&case.group, &case.topic)] {
        for found in case.read(&topic).await {
            let key = found.key.expect("a key");
            assert_eq!(found.headers.last("ce_id"), Some(&key[..]), "{topic}");
            let has_empty = found
                .headers
                .iter()
                .any(|it| it == (b"empty".as_slice(), None));
            assert!(has_empty, "{topic}");
        }
    }
}
