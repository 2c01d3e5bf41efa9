//! `outbox` and `store`: tables are migrated, committed events are published, waiting events are
//! shown, and no password is printed.

use crate::support::tool::{Cluster, PATIENCE, command, run, run_command, start};
use evenkeel::event::{Headers, OutgoingRecord};
use evenkeel::outbox::SqliteOutbox;
use evenkeel::testing::eventually;
use serde_json::Value;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use std::time::Duration;

/// An outbox in a file of its own.
struct Store {
    directory: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary folder is created"),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        self.directory.path().join("outbox.db")
    }

    fn address(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    /// Commits an event of this topic and key.
    async fn commit(&self, topic: &str, key: &str, value: &[u8]) {
        let outbox = SqliteOutbox::open(&self.path())
            .await
            .expect("the outbox opens");
        let url = self.path().display().to_string();
        let mut connection = SqliteConnection::connect(&url).await.expect("a connection");
        let record = OutgoingRecord {
            topic: topic.to_owned(),
            partition: None,
            key: Some(key.to_owned().into()),
            value: Some(value.to_vec().into()),
            headers: Headers::new(),
            timestamp_ms: None,
        };
        let written = outbox.publish_records(&mut connection, &[record]).await;
        written.expect("the outbox takes the records");
    }

    async fn status(&self) -> (Option<i32>, Value) {
        let run = run(&["outbox", "status", "--store", &self.address(), "-o", "json"]).await;
        let status = serde_json::from_str(&run.stdout).expect("the text is JSON");
        (run.code, status)
    }
}

/// The cells of a table's rows, which two blanks part.
fn cells_of(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.split("  ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    table.lines().skip(1).map(cells).collect()
}

#[tokio::test]
async fn tables_are_created_once_and_never_by_a_dry_run() {
    let store = Store::new();
    let migrate = ["store", "migrate", "--store", &store.address()];
    for flags in [&[][..], &["--dry-run"]] {
        let dry = run(&[&migrate[..], flags].concat()).await.code(0);
        assert_eq!(
            cells_of(&dry.stdout),
            [["outbox", "0", "1", "would be migrated"]]
        );
        assert!(dry.stderr.contains("--execute"), "{}", dry.stderr);
        assert!(!store.path().exists());
    }
    let none = run(&["outbox", "status", "--store", &store.address()])
        .await
        .code(1);
    assert!(
        none.stderr.contains("evenkeel store migrate"),
        "{}",
        none.stderr
    );
    let execute = [&migrate[..], &["--execute"]].concat();
    let first = run(&execute).await.code(0);
    assert_eq!(cells_of(&first.stdout), [["outbox", "0", "1", "migrated"]]);
    let second = run(&execute).await.code(0);
    assert_eq!(
        cells_of(&second.stdout),
        [["outbox", "1", "1", "up to date"]]
    );
    let status = run(&["outbox", "status", "--store", &store.address()])
        .await
        .code(0);
    assert!(status.stdout.contains("pending  0\n"), "{}", status.stdout);
}

#[tokio::test]
async fn a_relay_job_publishes_what_waits_and_names_held_keys() {
    let (cluster, store) = (Cluster::with_topic(1).await, Store::new());
    store.commit(&cluster.topic, "free", b"1").await;
    store.commit(&cluster.topic, "held", &[b'x'; 5_000]).await;
    store.commit(&cluster.topic, "held", b"2").await;
    let (code, before) = store.status().await;
    assert_eq!(
        (code, &before["pending"], &before["slots_free"]),
        (Some(3), &3.into(), &64.into())
    );

    let address = store.address();
    let job = [
        "outbox",
        "relay",
        "--until-empty",
        "--store",
        &address,
        "-X",
        "message.max.bytes=2000",
    ];
    let job = cluster.run(&job, "").await.code(1);
    assert!(
        job.stderr.contains("1 events published") && job.stderr.contains("1 keys held"),
        "{}",
        job.stderr
    );
    assert!(
        job.stderr.contains("was refused"),
        "the alarm is logged: {}",
        job.stderr
    );
    let shown = cluster
        .run(&["consume", &cluster.topic, "-e", "-f", "%k=%s\\n"], "")
        .await
        .code(0);
    assert_eq!(shown.stdout, "free=1\n");
    let (code, status) = store.status().await;
    let held = &status["held"][0];
    assert_eq!(
        (code, &held["key"], &held["pending"]),
        (Some(3), &"held".into(), &2.into())
    );

    let job = ["outbox", "relay", "--until-empty", "--store", &address];
    cluster.run(&job, "").await.code(0);
    let (code, status) = store.status().await;
    assert_eq!((code, &status["pending"]), (Some(0), &0.into()));
}

#[tokio::test]
async fn a_daemon_publishes_until_sigterm_and_leaves_no_lease() {
    let (cluster, store) = (Cluster::with_topic(1).await, Store::new());
    store.commit(&cluster.topic, "k", b"1").await;
    let mut relay = cluster.command(&["outbox", "relay"]);
    relay.env("EVENKEEL_STORE", store.address());
    let relay = start(relay);
    eventually(
        "the event is published",
        Duration::from_secs(30),
        || async {
            let (_, status) = store.status().await;
            (status["pending"] == 0 && status["slots_free"] == 0).then_some(())
        },
    )
    .await;
    relay.signal("TERM");
    let ended = relay.finished(PATIENCE).await.code(0);
    assert!(
        ended.stderr.contains("1 events published"),
        "{}",
        ended.stderr
    );
    let (_, status) = store.status().await;
    assert_eq!(
        (&status["slots_free"], &status["relays"]),
        (&64.into(), &Value::Array(vec![]))
    );
}

#[tokio::test]
async fn an_address_is_never_printed() {
    let secret = "postgres://user:hunter2@127.0.0.1:1/shop?connect_timeout=1";
    for args in [
        &["store", "migrate", "--store", secret][..],
        &["outbox", "status", "--store", secret],
        &["outbox", "relay", "--store", secret],
        &[
            "outbox",
            "status",
            "--store",
            "mysql://user:hunter2@127.0.0.1/shop",
        ],
        &["outbox", "relay", "--help"],
    ] {
        let mut command = command(args);
        command
            .env("EVENKEEL_STORE", secret)
            .env("RUST_LOG", "debug");
        let run = run_command(command, "").await;
        assert!(
            !run.stdout.contains("hunter2") && !run.stderr.contains("hunter2"),
            "{run:?}"
        );
        assert_ne!(run.code, None);
    }
    run(&["outbox", "status", "--store", "mysql://127.0.0.1/shop"])
        .await
        .code(2);
    run(&["outbox", "status"]).await.code(2);
}

#[tokio::test]
async fn in_postgres_inbox_tables_are_created_too() {
    let Some(postgres) = evenkeel::testing::postgres().await else {
        return;
    };
    let url = postgres
        .database()
        .await
        .expect("the server creates a database");
    // What is printed makes them too, and then there is nothing to print.
    let printed = run(&["store", "migrate", "--print"]).await.code(0).stdout;
    let by_hand = postgres
        .database()
        .await
        .expect("the server creates a database");
    let mut connection = sqlx::PgConnection::connect(&by_hand)
        .await
        .expect("the server takes a connection");
    let made = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("BEGIN; {printed}; COMMIT")));
    made.execute(&mut connection)
        .await
        .expect("the statement succeeds");
    let print = ["store", "migrate", "--print", "--store", &by_hand];
    let again = run(&print).await.code(0);
    assert_eq!(again.stdout, "");
    assert!(again.stderr.contains("up to date"), "{}", again.stderr);
    let of_sqlite = ["store", "migrate", "--print", "--store", "sqlite:x.db"];
    run(&of_sqlite).await.code(2);
    let migrate = ["store", "migrate", "--store", &url, "--execute"];
    let first = run(&migrate).await.code(0);
    let made = [
        ["outbox", "0", "1", "migrated"],
        ["inbox", "0", "4", "migrated"],
    ];
    assert_eq!(cells_of(&first.stdout), made);
    let second = run(&migrate).await.code(0);
    let there = [
        ["outbox", "1", "1", "up to date"],
        ["inbox", "4", "4", "up to date"],
    ];
    assert_eq!(cells_of(&second.stdout), there);
}
