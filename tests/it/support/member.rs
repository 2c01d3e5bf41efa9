//! A member of a group as a process of its own, which can be killed: a test of this binary run again.
//!
//! It ends when its standard input does, so a test that dies leaves no member behind.

use super::account::{self, CrashAt, Store};
use crate::support::{Case, Step, assignment};
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::{Event, EventType, Record};
use evenkeel::handler::{Context, HandlerError, Router};
use evenkeel::inbox::{BoxFuture, Claimed, Inbox, InboxError, InboxKey, SqliteInbox, SqliteTx};
use evenkeel::kafka::KafkaConfig;
use evenkeel::schema::Catalogue;
use evenkeel::testing::drills::Drills;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Tells the second process that it is a member, and which.
const SPEC: &str = "EVENKEEL_IT_MEMBER";

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

/// A running member; killed when dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Runs the test of this name, as libtest lists it, again as a member.
    pub(crate) fn start(test: &str, spec: &Spec) -> Self {
        let spec = serde_json::to_string(spec).expect("a specification is JSON");
        let child = Command::new(std::env::current_exe().expect("the test binary"))
            .args([test, "--exact", "--nocapture"])
            .env(SPEC, spec)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("this test again, as a member"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("the process is killed");
        self.0.wait().expect("reaped");
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it did: a member that ends by itself has failed.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().expect("its state")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already needs no kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A case of the first process; none where there is no Kafka. The second process does here what it
/// is to do, until killed.
pub(crate) async fn case(name: &str, partitions: i32) -> Option<Case> {
    match asked_for() {
        Some(spec) => {
            run(spec).await;
            None
        }
        None => Case::new(name, partitions).await,
    }
}

/// In the second process: what it is to do.
pub(crate) fn asked_for() -> Option<Spec> {
    let spec = std::env::var(SPEC).ok()?;
    Some(serde_json::from_str(&spec).expect("our own JSON"))
}

/// In the second process: does it until killed.
pub(crate) async fn run(spec: Spec) {
    std::thread::spawn(|| {
        // Nothing is ever written to it: its end is all there is to read.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
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
                .with_inbox(inbox.expect("the store"))
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
            Router::new().on(fail).with_inbox(inbox.expect("the store"))
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
            account::router(&store, &spec.group, Some(&drills)).await
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
