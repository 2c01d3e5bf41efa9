//! The audit proves a group that settled every record, and finds missing, reordered and
//! contradicted records, on each store.

use crate::support::dead_letters::Mailbox;
use crate::support::member::{Handled, Happened, Member, settings};
use evenkeel::event::{Event, EventType, OutgoingRecord};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::inbox::{Inbox, PostgresInbox, SqliteInbox};
use evenkeel::kafka::admin::Admin;
use evenkeel::testing::{Finished, postgres};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

const WITHIN: Duration = Duration::from_secs(60);

/// A store, and the way to tamper with it.
enum Store {
    Sqlite(TempDir),
    Postgres(String),
}

impl Store {
    fn file(directory: &TempDir) -> PathBuf {
        directory.path().join("store.db")
    }

    fn address(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite:{}", Self::file(directory).display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    async fn tamper(&self, sql: String) {
        let sql = sqlx::AssertSqlSafe(sql);
        let rows = match self {
            Self::Sqlite(directory) => {
                let address = Self::file(directory).display().to_string();
                let mut store = SqliteConnection::connect(&address)
                    .await
                    .expect("the store opens");
                let done = sqlx::query(sql).execute(&mut store).await;
                done.expect("it is done").rows_affected()
            }
            Self::Postgres(url) => {
                let mut store = PgConnection::connect(url)
                    .await
                    .expect("the server takes a connection");
                let done = sqlx::query(sql).execute(&mut store).await;
                done.expect("it is done").rows_affected()
            }
        };
        assert_eq!(rows, 1);
    }

    /// Completes an event so many seconds later than it was.
    async fn shift(&self, id: &str, seconds: i64) {
        let later = match self {
            Self::Sqlite(_) => format!("{}", seconds * 1000),
            Self::Postgres(_) => format!("interval '{seconds} seconds'"),
        };
        let set = format!("UPDATE evenkeel_inbox SET completed_at = completed_at + {later}");
        self.tamper(format!("{set} WHERE id = '{id}'")).await;
    }
}

/// Starts a member that dead-letters events numbered 10 to 19 and parks those numbered 20 to 29.
fn start_member(mailbox: &Mailbox, inbox: impl Inbox) -> Member {
    let mut settings = settings(&mailbox.group, &mailbox.source);
    settings.retry.attempts_max = 1;
    settings.retry.park_delays = vec![Duration::from_secs(3_600)];
    let router = Router::new()
        .on(async |event: Event<Happened>| match event.data.number {
            10..20 => Err(HandlerError::permanent("no stock")),
            20..30 => Err(HandlerError::transient("not now")),
            _ => Ok(()),
        })
        .with_inbox(inbox);
    Member::start(mailbox.kafka, settings, router, &Handled::default())
}

/// An event whose id is its key and its number.
fn event(mailbox: &Mailbox, ty: &str, key: &str, number: usize) -> OutgoingRecord {
    mailbox.event(ty, &format!("{key}-{number}"), key, number)
}

async fn audit(mailbox: &Mailbox, store: &Store, more: &[&str]) -> Finished {
    let address = store.address();
    let mut args = vec!["audit", "--group", &mailbox.group, "--topic"];
    args.extend([&mailbox.source, "--store", &address]);
    args.extend(more);
    mailbox.run(&args).await
}

/// The report of an audit that ended with that code.
async fn report(mailbox: &Mailbox, store: &Store, code: i32) -> Value {
    let run = audit(mailbox, store, &["-o", "jsonl"]).await.code(code);
    run.rows().remove(0)
}

/// Ids of what was found.
fn ids(report: &Value, kind: &str) -> Vec<String> {
    let listed = report[kind]["listed"].as_array().expect("a list");
    assert_eq!(report[kind]["count"], listed.len());
    let id = |found: &Value| found["id"].as_str().expect("an id").to_owned();
    listed.iter().map(id).collect()
}

/// Pauses the partition, so that a record of it can be skipped before it is handled, and goes on.
async fn skip(mailbox: &Mailbox, offset: usize, publish: impl Future<Output = ()>) {
    let (group, source) = (&mailbox.group, &mailbox.source);
    let order = async |command: &str, more: &[&str]| {
        let mut args = vec!["groups", command, group];
        args.extend(more);
        args.extend(["--why", "a bad record", "--by", "ada", "-o", "jsonl"]);
        mailbox.run(&args).await
    };
    order("pause", &["--topic", source]).await.code(0);
    publish.await;
    let record = format!("{source}/0@{offset}");
    let skipped = order("skip", &["--record", &record, "--wait", "2s"]).await;
    assert!(skipped.stdout.contains("pending"), "{skipped:?}");
    order("resume", &["--topic", source]).await.code(0);
}

/// The whole story, on one store.
async fn tell(mailbox: &Mailbox, inbox: impl Inbox, store: &Store) {
    let member = start_member(mailbox, inbox);
    let mine = |key, number| event(mailbox, Happened::TYPE, key, number);
    mailbox
        .publish([
            mine("a", 0),
            mine("a", 1),
            mine("b", 2),
            mine("dies", 10),
            mine("waits", 20),
            mine("waits", 3),
            event(mailbox, "test.ignored.v1", "a", 4),
            mine("a", 0),
            // No event: without a raw handler a dead letter.
            OutgoingRecord {
                topic: mailbox.source.clone(),
                ..mailbox.written("raw", 5, &[])
            },
        ])
        .await;
    mailbox.settled_by(&mailbox.group).await;
    skip(mailbox, 9, mailbox.publish([mine("skipped", 6)])).await;
    mailbox.settled_by(&mailbox.group).await;
    member.stop().await;

    let proven = report(mailbox, store, 0).await;
    let ends = |ty: &str| {
        let tally = &proven["types"][ty];
        [
            "records",
            "effects",
            "dead_letters",
            "parked",
            "skipped",
            "ignored",
        ]
        .map(|name| tally[name].as_u64().expect("a number"))
    };
    assert_eq!(ends(Happened::TYPE), [8, 4, 1, 2, 1, 0], "{proven}");
    assert_eq!(ends("test.ignored.v1"), [1, 0, 0, 0, 0, 1]);
    assert_eq!(ends("(raw)"), [1, 0, 1, 0, 0, 0]);
    assert_eq!(
        (&proven["proven"], &proven["lag"]),
        (&json!(true), &json!(0))
    );

    mailbox.publish([mine("late", 7)]).await;
    audit(mailbox, store, &["--max-lag", "1"]).await.code(0);
    let behind = audit(mailbox, store, &["--max-lag", "0"]).await.code(3);
    assert!(
        behind
            .stderr
            .contains("1 records are not committed yet, more than 0")
    );

    out_of_order(mailbox, store).await;
    missing(mailbox, store).await;
    without_letters(mailbox, store).await;
    of_another(mailbox, store).await;
}

async fn out_of_order(mailbox: &Mailbox, store: &Store) {
    store.shift("a-0", 100).await;
    let moved = report(mailbox, store, 3).await;
    assert_eq!(ids(&moved, "out_of_order"), ["a-1"]);
    assert_eq!(moved["out_of_order"]["listed"][0]["offset"], 1);
    audit(mailbox, store, &["--unordered"]).await.code(0);
    store.shift("a-0", -100).await;
    report(mailbox, store, 0).await;
}

async fn missing(mailbox: &Mailbox, store: &Store) {
    let delete = "DELETE FROM evenkeel_inbox WHERE id = 'b-2'";
    store.tamper(delete.to_owned()).await;
    let lost = report(mailbox, store, 3).await;
    assert_eq!(ids(&lost, "missing"), ["b-2"]);
    audit(mailbox, store, &["--from", "3"]).await.code(0);
    audit(mailbox, store, &["--to", "2"]).await.code(0);
    let shown = audit(mailbox, store, &["--memory", "1"]).await.code(3);
    let place = format!("{}/0@2", mailbox.source);
    assert!(shown.stdout.contains(&place), "{shown:?}");
    assert!(
        shown
            .stderr
            .contains("1 missing, 0 doubled, 0 out of order")
    );
    assert!(!shown.stdout.contains("number"), "no payload is shown");
}

/// Without its dead letters the group can still prove what was skipped, and no more what died.
async fn without_letters(mailbox: &Mailbox, store: &Store) {
    let kafka = mailbox.kafka.config();
    let admin = Admin::connect(&kafka, WITHIN)
        .await
        .expect("the admin client connects");
    let letters = admin.describe_topic(&mailbox.letters).await;
    let end = letters.expect("a topic").partitions[0].high;
    let before = [(0, end)].into();
    let deleted = admin.delete_records(&mailbox.letters, &before).await;
    deleted.expect("they are deleted");
    let lost = report(mailbox, store, 3).await;
    let missing = ids(&lost, "missing");
    // A record that is no event is known by its content as well.
    let ids: Vec<&str> = missing
        .iter()
        .filter_map(|id| id.split('#').next())
        .collect();
    assert_eq!(ids, ["b-2", "dies-10", "8"]);
    assert_eq!(lost["types"][Happened::TYPE]["skipped"], 1);
}

async fn of_another(mailbox: &Mailbox, store: &Store) {
    let address = store.address();
    let args = |group| {
        [
            "audit",
            "-g",
            group,
            "-t",
            &mailbox.source,
            "--store",
            &address,
        ]
    };
    let run = mailbox.run(&args("nobody")).await.code(1);
    assert!(!run.stderr.contains(&address), "{run:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_audit_proves_a_group_and_finds_tampering() {
    let Some(mailbox) = Mailbox::new(1).await else {
        return;
    };
    let directory = tempfile::tempdir().expect("a temporary folder is created");
    let inbox = SqliteInbox::open(&Store::file(&directory), &mailbox.group, "").await;
    let store = Store::Sqlite(directory);
    tell(&mailbox, inbox.expect("the store opens"), &store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_audit_proves_a_group_and_finds_tampering() {
    let (Some(mailbox), Some(postgres)) = (Mailbox::new(1).await, postgres().await) else {
        return;
    };
    let url = postgres
        .database()
        .await
        .expect("the server creates a database");
    let inbox = PostgresInbox::open(&url, "")
        .await
        .expect("the store opens");
    tell(&mailbox, inbox, &Store::Postgres(url)).await;
}
