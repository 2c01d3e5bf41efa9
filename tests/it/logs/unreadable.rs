//! Batches that no client can read stop their own partition only, are named, and are skipped on command.

use crate::control::operator::Operator;
use crate::support::damage::{Damage, Damageable};
use crate::support::{Case, Log, Member, WITHIN, publish_by, set};
use evenkeel::consumer::{Consumer, ConsumerError, StopWhen};
use evenkeel::control::{Action, CommandOutcome};
use evenkeel::event::{OutgoingRecord, Record};
use evenkeel::handler::Router;
use evenkeel::kafka::KafkaError;
use evenkeel::kafka::reader::{Reader, Reading};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::{eventually, required, unique};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A topic with a record, a batch of five at offset 1 that is damaged, and a record behind it; and a sound topic with one record.
struct World {
    broker: Damageable,
    operator: Operator,
    sound: String,
}

impl World {
    async fn new(damage: Damage, codec: &str) -> Option<Self> {
        let broker = required(Damageable::start().await)?;
        let operator = Operator::of(Case::on(&broker.kafka, "it-unreadable", 1).await);
        let sound = unique("it-readable");
        let created = broker.kafka.create_topic(&sound, 1).await;
        created.expect("the topic is created");
        publish_batch(&operator, &["before"], "none").await;
        publish_batch(&operator, &["1", "2", "3", "4", "5"], codec).await;
        publish_batch(&operator, &["after"], "none").await;
        let other = OutgoingRecord {
            topic: sound.clone(),
            ..operator.record(None, "sound")
        };
        operator.publish([other]).await;
        broker.damage(&operator.topic, 1, damage);
        Some(Self {
            broker,
            operator,
            sound,
        })
    }

    /// A member of both topics, and what it handled.
    fn start(&self, properties: &[&str]) -> (Member, Log<String>) {
        let handled = Log::new();
        let mut kafka = self.operator.kafka.clone();
        properties
            .iter()
            .for_each(|property| set(&mut kafka, property));
        let mut settings = self.operator.settings();
        settings.topics.push(self.sound.clone());
        (Member::start(&kafka, settings, router(&handled)), handled)
    }

    /// Skips a record, and waits until its owner says that it is done.
    async fn skip(&self, offset: i64) {
        let record = self.operator.position(0, offset);
        let (skip, _) = self.operator.command(Action::Skip { record }).await;
        let outcomes = self.operator.acknowledged(&skip, &[0]).await;
        assert_eq!(outcomes, [CommandOutcome::Skipped]);
    }
}

fn router(handled: &Log<String>) -> Router {
    let handled = handled.clone();
    Router::new().raw(move |record: Record| {
        let value = record.value().unwrap_or_default();
        handled.push(String::from_utf8_lossy(value).into_owned());
        async {}
    })
}

/// Publishes values of one key in one batch.
async fn publish_batch(case: &Case, values: &[&str], codec: &str) {
    let mut kafka = case.kafka.clone();
    set(&mut kafka, "linger.ms=200");
    set(&mut kafka, &format!("compression.type={codec}"));
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/it"))
        .expect("the settings of the publisher are valid");
    let records = values
        .iter()
        .map(|value| case.record(Some("k"), value.to_string()));
    publish_by(&publisher, records).await;
}

/// It is named.
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_batch_stops_its_partition_and_is_skipped_whole() {
    let Some(world) = World::new(Damage::Codec(5), "gzip").await else {
        return;
    };
    let (member, handled) = world.start(&[]);
    let complaint = eventually("the batch is named with its end", WITHIN, || async {
        let complaint = member.complaint("consumer").await;
        complaint
            .contains("reaches to offset 5")
            .then_some(complaint)
    })
    .await;
    let record = format!("{}/0@1", world.operator.topic);
    for expected in [
        "codec 5",
        &format!("groups skip {} --record {record}", world.operator.group),
    ] {
        assert!(complaint.contains(expected), "{expected}: {complaint}");
    }
    world.operator.offsets_of(&world.sound, 1).reach(0, 1).await;
    world.operator.offsets().reach(0, 1).await;
    // A record in the midst of the batch stands for all of it.
    world.skip(3).await;
    world.operator.offsets().reach(0, 7).await;
    member.ready_again().await;
    let report = member.stop().await;
    assert!(report.clean, "{report:?}");
    let mut handled = handled.entries();
    handled.sort();
    assert_eq!(handled, ["after", "before", "sound"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_wrong_checksum_is_not_passed_over() {
    let Some(world) = World::new(Damage::LastByte, "none").await else {
        return;
    };
    let (member, handled) = world.start(&["check.crcs=true"]);
    let complaint = eventually("the batch is named with its end", WITHIN, || async {
        let complaint = member.complaint("consumer").await;
        complaint
            .contains("reaches to offset 5")
            .then_some(complaint)
    })
    .await;
    assert!(complaint.contains("checksum"), "{complaint}");
    world.operator.offsets_of(&world.sound, 1).reach(0, 1).await;
    world.operator.offsets().reach(0, 1).await;
    world.skip(1).await;
    world.operator.offsets().reach(0, 7).await;
    assert!(member.stop().await.clean);
    let mut handled = handled.entries();
    handled.sort();
    assert_eq!(handled, ["after", "before", "sound"]);
}

/// It waits for half a minute until it says that nothing comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_damaged_inside_is_found_by_its_silence() {
    if std::env::var_os("EVENKEEL_LONG_TESTS").is_none() {
        return;
    }
    let Some(world) = World::new(Damage::Inside, "none").await else {
        return;
    };
    let (member, handled) = world.start(&[]);
    // Four of five records stand before the damage.
    world.operator.offsets().reach(0, 5).await;
    let complaint = eventually("the silence is noticed", WITHIN * 2, || async {
        let complaints = member.health.not_ready();
        let complaint = complaints.into_iter().find(|(name, _)| name == "consumer");
        complaint.map(|(_, reason)| reason)
    })
    .await;
    assert!(complaint.contains("damaged inside"), "{complaint}");
    world.skip(5).await;
    world.operator.offsets().reach(0, 7).await;
    assert!(member.stop().await.clean);
    let mut handled = handled.entries();
    handled.sort();
    assert_eq!(handled, ["1", "2", "3", "4", "after", "before", "sound"]);
}

/// It ends with the reason. Readers go on elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_run_ends_at_an_unreadable_batch() {
    // A codec that is known, and bytes that are none of it.
    let Some(world) = World::new(Damage::Codec(4), "gzip").await else {
        return;
    };
    let (handled, operator) = (Log::new(), &world.operator);
    let mut settings = operator.settings();
    settings.topics.push(world.sound.clone());
    settings.stop_when = StopWhen::UntilEnd;
    let consumer = Consumer::new(operator.kafka.clone(), settings, router(&handled));
    let run = consumer
        .expect("settings that can be used")
        .run(CancellationToken::new());
    let ended = tokio::time::timeout(WITHIN, run)
        .await
        .expect("it ends in time");
    let error = ended.expect_err("the end cannot be reached");
    let ConsumerError::Kafka(KafkaError::UnreadableBatch(batch)) = &error else {
        panic!("{error}");
    };
    assert_eq!((&*batch.topic, batch.offset), (&*operator.topic, 1));
    assert!(batch.cause.contains("zstd"), "{error}");
    let mut handled = handled.entries();
    handled.sort();
    assert_eq!(handled, ["before", "sound"]);
    assert_eq!(operator.offsets().committed_of(0).await, 1);
    assert_eq!(
        operator.offsets_of(&world.sound, 1).committed_of(0).await,
        1
    );

    let topics = [operator.topic.clone(), world.sound.clone()];
    let (kafka, wait) = (world.broker.kafka.config(), Duration::from_secs(10));
    let read = move || {
        let mut reader =
            Reader::open(&kafka, &Reading::whole(topics), wait).expect("the reader opens");
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        while !reader.at_end() {
            match reader.next(wait) {
                Ok(record) => records.extend(record.and_then(|record| record.value)),
                Err(error) => errors.push(error.to_string()),
            }
        }
        (records, errors)
    };
    let (mut records, errors) = tokio::task::spawn_blocking(read)
        .await
        .expect("the task does not panic");
    records.sort();
    assert_eq!(records, [b"before".to_vec(), b"sound".to_vec()]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("offset 1"), "{errors:?}");
}
