//! G3: inbox row and effect commit together, so an event that comes twice has its effect once, and what its handler
//! publishes carries the same ids each time.

use crate::support::{Case, Member, Step, WITHIN, set};
use evenkeel::consumer::StopWhen;
use evenkeel::event::{Event, EventType, OutgoingRecord, derived_id};
use evenkeel::handler::{Context, HandlerError, PublishedIds, Router};
use evenkeel::inbox::{SqliteInbox, SqliteTx};
use evenkeel::kafka::reader::LogRecord;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::eventually;
use rdkafka::mocking::MockCluster;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, amount INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bookings (seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, number INTEGER NOT NULL);
";

async fn book(event: Event<Step>, context: Context, mut tx: SqliteTx) -> Result<(), HandlerError> {
    let number = i64::try_from(event.data.number)?;
    sqlx::query(
        "INSERT INTO balances VALUES (?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
    )
    .bind(&event.data.key)
    .bind(number)
    .execute(&mut *tx)
    .await?;
    sqlx::query("INSERT INTO bookings (account, number) VALUES (?, ?)")
        .bind(&event.data.key)
        .bind(number)
        .execute(&mut *tx)
        .await?;
    // Fails after it has written, so that the effect has to be undone and done again.
    if event.data.number.is_multiple_of(7) && context.attempt() == 1 {
        return Err(HandlerError::transient("not yet"));
    }
    Ok(())
}

async fn store(case: &Case) -> (tempfile::TempDir, SqliteInbox) {
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let path = directory.path().join("store.db");
    let inbox = SqliteInbox::open(&path, &case.group, SCHEMA).await;
    (directory, inbox.expect("the store opens"))
}

/// The balances add up.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_produced_twice_has_its_effect_once() {
    const ACCOUNTS: u64 = 20;
    const NUMBERS: u64 = 30;
    let Some(case) = Case::new("it-g3", 3).await else {
        return;
    };
    let publisher = case.publisher();
    let step = |number| (0..ACCOUNTS).map(move |account| (format!("a{account}"), number));
    let steps: Vec<OutgoingRecord> = (1..=NUMBERS)
        .flat_map(step)
        .map(|(account, number)| case.step(&publisher, &account, number))
        .collect();
    // Once more each, in the same order: the second comes while the first may still be at work.
    let twice = steps.iter().flat_map(|step| [step.clone(), step.clone()]);
    case.publish(twice).await;
    let (_directory, inbox) = store(&case).await;
    let mut settings = case.settings();
    settings.stop_when = StopWhen::UntilEnd;
    settings.retry.backoff.initial = Duration::from_millis(5);
    let router = Router::new().on(book).with_inbox(inbox.clone());
    let report = Member::start(&case.kafka, settings, router).ended().await;
    assert_eq!(report.settled, 2 * ACCOUNTS * NUMBERS);
    assert_eq!(report.duplicates, ACCOUNTS * NUMBERS);
    assert_eq!(report.dead_letters, 0);

    let balances: Vec<(String, i64)> = sqlx::query_as("SELECT account, amount FROM balances")
        .fetch_all(inbox.pool())
        .await
        .expect("the query returns its rows");
    let expected = (NUMBERS * (NUMBERS + 1) / 2) as i64;
    assert_eq!(balances.len() as u64, ACCOUNTS);
    assert!(
        balances.iter().all(|(_, amount)| *amount == expected),
        "{balances:?}"
    );
    let bookings: Vec<(String, i64)> =
        sqlx::query_as("SELECT account, number FROM bookings ORDER BY seq")
            .fetch_all(inbox.pool())
            .await
            .expect("the query returns its rows");
    let mut order: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (account, number) in bookings {
        order.entry(account).or_default().push(number);
    }
    assert!(
        order
            .values()
            .all(|numbers| numbers.iter().copied().eq(1..=NUMBERS as i64))
    );
}

/// What the handler below answers.
#[derive(Serialize, Deserialize)]
struct Reply {
    key: String,
    ordinal: u32,
    /// Differs from attempt to attempt: a reply that was made again instead of sent again would show.
    made_in: String,
}

impl EventType for Reply {
    const TYPE: &'static str = "it.reply.v1";
    const TOPIC: &'static str = "it.replies";

    fn key(&self) -> String {
        self.key.clone()
    }
}

async fn answer(
    event: Event<Step>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    sqlx::query("INSERT INTO bookings (account, number) VALUES (?, 1)")
        .bind(&event.data.key)
        .execute(&mut *tx)
        .await?;
    for ordinal in 0..2 {
        context.publish(Reply {
            key: event.data.key.clone(),
            ordinal,
            made_in: evenkeel::event::new_id(),
        })?;
    }
    Ok(())
}

fn id(reply: &LogRecord) -> String {
    let id = reply.headers.last("ce_id").expect("an event");
    String::from_utf8(id.to_vec()).expect("the bytes are UTF-8")
}

/// The handlers' publisher writes to a cluster of its own, which can be taken away.
#[tokio::test(flavor = "multi_thread")]
async fn unsent_replies_are_sent_later_with_the_same_ids() {
    let Some(case) = Case::new("it-g3", 1).await else {
        return;
    };
    let cluster = MockCluster::new(1).expect("the mock cluster starts");
    cluster
        .create_topic(Reply::TOPIC, 1, 1)
        .expect("the topic is created");
    let mut replies = Case::named(
        evenkeel::kafka::KafkaConfig::new(cluster.bootstrap_servers()),
        Reply::TOPIC.to_owned(),
        1,
    );
    set(&mut replies.kafka, "delivery.timeout.ms=1000");
    let publisher = || {
        let settings = PublisherSettings::new("/it/answers");
        Publisher::new(&replies.kafka, settings).expect("the settings of the publisher are valid")
    };
    let (_directory, inbox) = store(&case).await;
    let router = Router::new()
        .on(answer)
        .with_published_ids(PublishedIds::OfHandler)
        .with_inbox(inbox.clone());
    let step = case.step(&case.publisher(), "a", 1);
    let step_id = String::from_utf8(step.headers.last("ce_id").expect("an id").to_vec());
    let step_id = step_id.expect("the text is UTF-8");
    cluster.broker_down(-1).expect("the mock broker stops");
    case.publish([step]).await;

    let mut settings = case.settings();
    settings.drain_timeout = Duration::from_millis(200);
    let first = Member::start_with(&case.kafka, settings, router.clone(), Some(publisher()));
    let bookings = || async {
        let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM bookings");
        count
            .fetch_one(inbox.pool())
            .await
            .expect("the query returns a row")
    };
    eventually("the effect is committed", WITHIN, || async {
        (bookings().await == 1).then_some(())
    })
    .await;
    let report = first.stop().await;
    assert_eq!(
        (report.settled, report.clean),
        (0, false),
        "not settled before its replies are out"
    );
    assert_eq!(case.offsets().committed_of(0).await, 0);

    cluster.broker_up(-1).expect("the mock broker starts");
    let second = Member::start_with(&case.kafka, case.settings(), router, Some(publisher()));
    case.all_committed().await;
    let report = second.stop().await;
    assert_eq!((report.settled, report.duplicates), (1, 1));
    assert_eq!(bookings().await, 1);
    let sent = replies.read(Reply::TOPIC).await;
    let ids: Vec<String> = sent.iter().map(id).collect();
    let expected: Vec<String> = (0..2)
        .map(|ordinal| derived_id("/it", &step_id, Step::TYPE, ordinal))
        .collect();
    assert_eq!(ids, expected, "in order, with the ids of the first attempt");
}
