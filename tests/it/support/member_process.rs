//! A member of a group as a process of its own, which can be killed: a test of this binary run again.

use super::balances::{self, CrashAt, Store};
use super::{Case, Step, assignment, second_process};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::{Event, EventType, Record};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::{BoxFuture, Claimed, Inbox, InboxError, InboxKey, SqliteInbox, SqliteTx};
use evenkeel::kafka::KafkaConfig;
use evenkeel::schema::Catalogue;
use evenkeel::testing::ChildProcess;
use evenkeel::testing::drills::Drills;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A row per effect, without a unique constraint, so that a doubled effect would show.
pub(crate) const EFFECTS: &str = "
CREATE TABLE IF NOT EXISTS effects (
    seq         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL,
    record_key  TEXT NOT NULL,
    number      INTEGER NOT NULL,
    partition   INTEGER NOT NULL,
    \"offset\"  INTEGER NOT NULL,
    process     INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000 AS INTEGER))
);
CREATE INDEX IF NOT EXISTS effects_by_place ON effects (partition, \"offset\");
";

/// What a member does.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) brokers: String,
    pub(crate) properties: Vec<String>,
    pub(crate) group: String,
    pub(crate) topic: String,
    /// Static membership.
    pub(crate) instance: Option<String>,
    pub(crate) work: Work,
}

/// What its handlers do.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Write each step as an effect into this store.
    Journal(PathBuf),
    /// The same, but the steps of this key from this number on fail for as long as the file is there. They are parked after one
    /// attempt.
    Fail {
        store: PathBuf,
        key: String,
        from: u64,
        while_exists: PathBuf,
    },
    /// Add each step to its account's balance, while this share of commits is refused, until the crash.
    Account {
        store: Store,
        refused: f64,
        crash: Option<CrashAt>,
    },
    /// Never finish, and hold at most these bytes.
    Stall { in_flight_bytes_max: usize },
    /// Check each step against a schema, and wait for a store that does not answer.
    Validate,
}

/// A store that does not answer.
struct Silent;

impl Inbox for Silent {
    fn claim<'a>(&'a self, _: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(std::future::pending())
    }

    fn sent(&self, _: &InboxKey) {}
}

impl Spec {
    /// A member of the case's group, which notices the end of another one within seconds.
    pub(crate) fn new(case: &Case, work: Work) -> Self {
        Self {
            brokers: case.kafka.brokers.clone(),
            properties: ["session.timeout.ms=6000", "heartbeat.interval.ms=300"]
                .map(str::to_owned)
                .into(),
            group: case.group.clone(),
            topic: case.topic.clone(),
            instance: None,
            work,
        }
    }

    /// Runs the test of this name, as libtest lists it, again as this member.
    pub(crate) fn start(&self, test: &str) -> ChildProcess {
        second_process::start(test, self)
    }
}

/// A case of the first process; none where there is no Kafka. In the second process: is its member until it is killed, and
/// does not return.
pub(crate) async fn case(name: &str, partitions: i32) -> Option<Case> {
    run_if_second().await;
    Case::new(name, partitions).await
}

/// In the second process: is its member until it is killed, and does not return. Returns at once in the first one.
pub(crate) async fn run_if_second() {
    if let Some(spec) = second_process::role() {
        run(spec).await;
    }
}

async fn run(spec: Spec) {
    second_process::end_with_the_first();
    let mut kafka = KafkaConfig::new(&spec.brokers);
    for property in &spec.properties {
        kafka.set(property).expect("a property of librdkafka");
    }
    let mut settings = ConsumerSettings::new(&spec.group, [&spec.topic]);
    settings.assignment = assignment();
    settings.commit_interval = Duration::from_millis(100);
    settings.instance_id = spec.instance;
    let router = match spec.work {
        Work::Journal(store) => {
            let inbox = SqliteInbox::open(&store, &spec.group, EFFECTS).await;
            Router::new()
                .on(journal)
                .with_inbox(inbox.expect("the store opens"))
        }
        Work::Fail {
            store,
            key,
            from,
            while_exists,
        } => {
            settings.retry.attempts_max = 1;
            settings.retry.park_delays = vec![Duration::from_secs(1); 1_000];
            let inbox = SqliteInbox::open(&store, &spec.group, EFFECTS).await;
            let fail = move |event: Event<Step>, context: Context, tx: SqliteTx| {
                let is_doomed = event.data.key == key && event.data.number >= from;
                let fails = is_doomed && while_exists.exists();
                async move {
                    match fails {
                        true => Err(HandlerError::transient("not now")),
                        false => journal(event, context, tx).await,
                    }
                }
            };
            Router::new()
                .on(fail)
                .with_inbox(inbox.expect("the store opens"))
        }
        Work::Account {
            store,
            refused,
            crash,
        } => {
            settings.retry.backoff.initial = Duration::from_millis(5);
            let mut drills = Drills::seeded(spec.group.len() as u64).refuse_commits(refused);
            if let Some(CrashAt { point, nth }) = crash {
                drills = drills.crash_at(point, nth);
            }
            balances::router(&store, &spec.group, Some(&drills)).await
        }
        Work::Stall {
            in_flight_bytes_max,
        } => {
            settings.in_flight_bytes_max = in_flight_bytes_max;
            Router::new().raw(async |_record: Record| std::future::pending::<()>().await)
        }
        Work::Validate => {
            let schema = r#"{"type": "object", "properties": {"key": {"type": "string"}}}"#;
            let catalogue = Catalogue::from_texts([(Step::TYPE, schema)]);
            Router::new()
                .on(async |_: Event<Step>| {})
                .with_catalogue(Arc::new(catalogue.expect("a schema")))
                .with_inbox(Silent)
        }
    };
    let consumer = Consumer::new(kafka, settings, router).expect("settings that can be used");
    let ended = consumer.run(CancellationToken::new()).await;
    panic!("a member ends by a kill only: {ended:?}");
}

async fn journal(
    event: Event<Step>,
    context: Context,
    mut tx: SqliteTx,
) -> Result<(), HandlerError> {
    let insert = "INSERT INTO effects (id, record_key, number, partition, \"offset\", process) VALUES (?, ?, ?, ?, ?, ?)";
    sqlx::query(insert)
        .bind(event.attributes.id)
        .bind(event.data.key)
        .bind(i64::try_from(event.data.number)?)
        .bind(context.partition())
        .bind(context.offset())
        .bind(std::process::id())
        .execute(&mut *tx)
        .await?;
    Ok(())
}
