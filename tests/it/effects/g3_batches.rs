//! G3 in batches: a batch has one transaction, and still each event has its effect once and an outcome of its own.

use crate::support::{Case, Member, Step};
use evenkeel::consumer::StopWhen;
use evenkeel::event::{EventType, OutgoingRecord, derived_id};
use evenkeel::handler::{Delivered, HandlerError, Outcome, PublishedIds, Router, State};
use evenkeel::inbox::{SqliteInbox, SqliteTx};
use evenkeel::kafka::KafkaConfig;
use evenkeel::publisher::{Publisher, PublisherSettings};
use rdkafka::mocking::MockCluster;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS bookings (seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, number INTEGER NOT NULL);
";

#[derive(Serialize, Deserialize)]
struct Booked {
    account: String,
}

impl EventType for Booked {
    const TYPE: &'static str = "it.booked.v1";
    const TOPIC: &'static str = "it.booked";

    fn key(&self) -> String {
        self.account.clone()
    }
}

/// The size of the largest batch.
#[derive(Clone, Default)]
struct Largest(Arc<AtomicUsize>);

/// Books every step but the first attempt at each seventh, and publishes that. Fails a batch after it has written, where the
/// first attempt at a fifth step of the first account is in it.
async fn book(
    steps: Vec<Delivered<Step>>,
    mut tx: SqliteTx,
    State(largest): State<Largest>,
) -> Result<Vec<Outcome>, HandlerError> {
    largest.0.fetch_max(steps.len(), Ordering::Relaxed);
    let mut outcomes = Vec::new();
    let mut is_failed = false;
    for Delivered { event, context, .. } in &steps {
        let Step { key, number } = &event.data;
        let is_first = context.attempt() == 1;
        is_failed |= is_first && key == "a0" && number.is_multiple_of(5);
        if is_first && number.is_multiple_of(7) {
            outcomes.push(Outcome::Retry(HandlerError::transient("not yet")));
            continue;
        }
        let insert = sqlx::query("INSERT INTO bookings (account, number) VALUES (?, ?)");
        let insert = insert.bind(key).bind(*number as i64);
        insert.execute(&mut *tx).await?;
        let account = key.clone();
        context.publish(Booked { account })?;
        outcomes.push(Outcome::Done);
    }
    match is_failed {
        true => Err(HandlerError::transient("the batch fails")),
        false => Ok(outcomes),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_duplicates_has_each_effect_once_in_order() {
    const ACCOUNTS: u64 = 20;
    const NUMBERS: u64 = 30;
    let Some(case) = Case::new("it-g3-batches", 3).await else {
        return;
    };
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    cluster
        .create_topic(Booked::TOPIC, 1, 1)
        .expect("the topic is created");
    let booked = Case::named(
        KafkaConfig::new(cluster.bootstrap_servers()),
        Booked::TOPIC.to_owned(),
        1,
    );
    let publisher = case.publisher();
    let step = |number| (0..ACCOUNTS).map(move |account| (format!("a{account}"), number));
    let steps: Vec<OutgoingRecord> = (1..=NUMBERS)
        .flat_map(step)
        .map(|(account, number)| case.step(&publisher, &account, number))
        .collect();
    let twice = steps.iter().flat_map(|step| [step.clone(), step.clone()]);
    case.publish(twice).await;

    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("store.db");
    let inbox = SqliteInbox::open(&path, &case.group, SCHEMA).await;
    let inbox = inbox.expect("the store opens");
    let largest = Largest::default();
    let router = Router::new().on_batch(book).with_state(largest.clone());
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    settings.retry.backoff.initial = Duration::from_millis(5);
    let router = router
        .with_published_ids(PublishedIds::OfHandler)
        .with_inbox(inbox.clone());
    let answers = Publisher::new(&booked.kafka, PublisherSettings::new("/it/booked"));
    let answers = answers.expect("a publisher");
    let member = Member::start_with(&case.kafka, settings, router, Some(answers));
    let report = member.ended().await;
    assert_eq!(report.settled, 2 * ACCOUNTS * NUMBERS);
    assert_eq!(report.duplicates, ACCOUNTS * NUMBERS);
    assert_eq!(report.dead_letters, 0);
    let largest = largest.0.load(Ordering::Relaxed);
    assert!((2..=ACCOUNTS as usize).contains(&largest), "{largest}");

    let bookings: Vec<(String, i64)> =
        sqlx::query_as("SELECT account, number FROM bookings ORDER BY seq")
            .fetch_all(inbox.pool())
            .await
            .expect("the query returns its rows");
    let mut order: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (account, number) in bookings {
        order.entry(account).or_default().push(number);
    }
    assert_eq!(order.len() as u64, ACCOUNTS);
    for (account, numbers) in order {
        assert!(
            numbers.iter().copied().eq(1..=NUMBERS as i64),
            "{account}: {numbers:?}"
        );
    }

    // A duplicate publishes again, with the same id.
    let id = |headers: &evenkeel::event::Headers| {
        let id = headers.last("ce_id").expect("an event");
        String::from_utf8(id.to_vec()).expect("the bytes are UTF-8")
    };
    let sent = booked.read(Booked::TOPIC).await;
    let sent: HashSet<String> = sent.iter().map(|record| id(&record.headers)).collect();
    let step_ids = steps.iter().map(|step| id(&step.headers));
    let expected = step_ids.map(|step_id| derived_id("/it", &step_id, Step::TYPE, 0));
    assert_eq!(sent, expected.collect(), "each derived from its own event");
}
