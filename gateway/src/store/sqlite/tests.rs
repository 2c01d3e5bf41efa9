//! SQLite passes the suite, and its own cases: locks, a full queue, the purge, and two gateways.

use super::super::conformance::{self, Subject, TOPIC, WITHIN, claim, event, keyed, request};
use super::super::error::{AcceptError, StoreError};
use super::super::maintenance::now_ms;
use super::super::port::{AcceptStore, Accepted};
use super::super::settings::StoreSettings;
use super::SqliteStore;
use evenkeel::event::new_id;
use evenkeel::inbox::BoxFuture;
use evenkeel::outbox::OutboxStore;
use evenkeel::testing::eventually;
use futures_util::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

struct InFile {
    store: Arc<SqliteStore>,
    path: PathBuf,
}

impl InFile {
    async fn open(folder: &Path) -> Self {
        Self::open_with(folder, &StoreSettings::default()).await
    }

    async fn open_with(folder: &Path, settings: &StoreSettings) -> Self {
        let path = folder.join("gateway.db");
        let store = SqliteStore::open_with(&path, settings)
            .await
            .expect("the store opens");
        Self {
            store: Arc::new(store),
            path,
        }
    }

    /// A connection of another program.
    async fn connection(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(&self.path);
        options.connect().await.expect("the file opens")
    }
}

impl Subject for InFile {
    fn store(&self) -> Arc<dyn AcceptStore> {
        self.store.clone()
    }

    fn records(&self) -> BoxFuture<'_, Vec<(String, String)>> {
        Box::pin(async move {
            let mut connection = self.connection().await;
            let records = "SELECT aggregateid, CAST(payload AS TEXT) FROM evenkeel_outbox
                           WHERE aggregatetype = ? ORDER BY sequence";
            let records = sqlx::query_as(records)
                .bind(TOPIC)
                .fetch_all(&mut connection)
                .await;
            records.expect("the query returns rows")
        })
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder is created")
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_the_contract() {
    let folder = folder();
    conformance::check(&InFile::open(folder.path()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_share_a_file() {
    let folder = folder();
    let (one, other) = (
        InFile::open(folder.path()).await,
        InFile::open(folder.path()).await,
    );
    conformance::check_shared(&one, &other).await;
}

#[tokio::test]
async fn identities_survive_a_restart() {
    let folder = folder();
    let first = keyed(claim("shop", "a", 1), vec![event("k", "1", "1")]);
    for expected_new in [true, false] {
        let subject = InFile::open(folder.path()).await;
        let accepted = subject
            .store
            .accept(first.clone())
            .await
            .expect("it is accepted");
        assert_eq!(accepted == Accepted::New, expected_new, "{accepted:?}");
        assert_eq!(subject.records().await.len(), 1);
        subject.store.close().await;
        let closed = subject
            .store
            .accept(request(vec![event("k", "2", "1")]))
            .await;
        assert!(
            matches!(closed, Err(AcceptError::Unavailable { .. })),
            "{closed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_refuses_and_empties_again() {
    let folder = folder();
    let settings = StoreSettings::default().with_queue_requests_max(5);
    let subject = InFile::open_with(folder.path(), &settings).await;
    let mut other = subject.connection().await;
    let lock = other
        .begin_with("BEGIN IMMEDIATE")
        .await
        .expect("the lock is free");
    // The writer has some of them and waits for the lock; the queue has five at most.
    let calls = (0..300).map(|_| {
        subject
            .store
            .accept(request(vec![event("k", &new_id(), "1")]))
    });
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lock.rollback().await.expect("the lock is released");
    };
    let (outcomes, ()) = tokio::join!(join_all(calls), release);
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let full = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Err(AcceptError::Full { .. })))
        .count();
    assert!(
        accepted >= 5 && full > 0,
        "{accepted} accepted, {full} refused"
    );
    assert_eq!(accepted + full, 300);
    assert_eq!(subject.records().await.len(), accepted);
    let later = subject
        .store
        .accept(request(vec![event("k", &new_id(), "1")]))
        .await;
    assert!(later.is_ok(), "{later:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_before_the_lock_is_free_accepts_nothing() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let mut other = subject.connection().await;
    let lock = other
        .begin_with("BEGIN IMMEDIATE")
        .await
        .expect("the lock is free");
    let mut late = request(vec![event("k", "1", "1")]);
    late.deadline = Some(Instant::now() + Duration::from_millis(200));
    let refused = subject.store.accept(late).await;
    assert!(
        matches!(refused, Err(AcceptError::DeadlineExceeded)),
        "{refused:?}"
    );
    lock.rollback().await.expect("the lock is released");
    let next = subject
        .store
        .accept(request(vec![event("k", "2", "2")]))
        .await;
    assert!(next.is_ok(), "{next:?}");
    let records = subject.records().await;
    assert_eq!(records, [("k".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn purged_identities_are_new_again() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let first = || keyed(claim("shop", "a", 1), vec![event("k", "1", "1")]);
    let many = (0..2_500)
        .map(|n: u32| event("k", &format!("many-{n}"), "1"))
        .collect();
    let accepted = subject.store.accept(request(many)).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    for (before_ms, records) in [(0, 2_501), (now_ms() + 60_000, 2_502)] {
        let accepted = subject.store.accept(first()).await;
        assert!(accepted.is_ok(), "{accepted:?}");
        subject.store.purge_before(before_ms).await;
        let accepted = subject.store.accept(first()).await.expect("it is accepted");
        assert_eq!(accepted == Accepted::New, before_ms > 0, "{accepted:?}");
        assert_eq!(subject.records().await.len(), records);
    }
    let many = subject
        .store
        .find("many-2499", None)
        .await
        .expect("the store answers");
    assert!(many.is_empty(), "{many:?}");
}

#[tokio::test]
async fn a_held_key_does_not_make_the_backlog_old() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let events = ["1", "2"].map(|id| event("held", id, "1")).to_vec();
    let accepted = subject.store.accept(request(events)).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let mark = "UPDATE evenkeel_outbox SET failure = 'too large', failed_at = 0, created_at = 0
                WHERE sequence = 1";
    let mut connection = subject.connection().await;
    sqlx::raw_sql(mark)
        .execute(&mut connection)
        .await
        .expect("the row is marked");
    let accepted = subject
        .store
        .accept(request(vec![event("free", "3", "1")]))
        .await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let measured = eventually("the new event is counted", WITHIN, || async {
        let backlog = subject.store.backlog();
        (backlog.events == 1).then_some(backlog)
    });
    let oldest = measured.await.oldest_age.expect("one event waits");
    assert!(oldest < WITHIN, "{oldest:?}");
}

#[tokio::test]
async fn an_old_held_key_does_not_make_the_backlog_large() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let held = request(vec![event("held", "1", "1")]);
    let accepted = subject.store.accept(held).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    // As if three million events were published since then.
    let mark = "UPDATE evenkeel_outbox SET failure = 'too large', failed_at = 0, created_at = 0;
                UPDATE sqlite_sequence SET seq = 3000000 WHERE name = 'evenkeel_outbox'";
    let mut connection = subject.connection().await;
    sqlx::raw_sql(mark)
        .execute(&mut connection)
        .await
        .expect("the row is marked");
    let many = (0..2_500)
        .map(|n: u32| event("free", &format!("many-{n}"), "1"))
        .collect();
    let accepted = subject.store.accept(request(many)).await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let measured = eventually("the new events are counted", WITHIN, || async {
        let backlog = subject.store.backlog();
        (backlog.events == 2_500).then_some(backlog)
    });
    let backlog = measured.await;
    let oldest = backlog.oldest_age.expect("events wait");
    assert!(oldest < WITHIN, "{oldest:?}");
    // All but the held event and the waiting ones.
    assert_eq!(backlog.drained, 2_999_999);
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_does_not_end_the_writer() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    subject.store.fail_a_commit().await;
    let accepted = subject
        .store
        .accept(request(vec![event("k", "1", "1")]))
        .await;
    assert!(accepted.is_ok(), "{accepted:?}");
}

/// SQLite would go on with a file that is gone at the end of the process.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_not_in_its_place_accepts_nothing() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let accept = || {
        let event = event("k", &new_id(), "1");
        subject.store.accept(request(vec![event]))
    };
    let wal = folder.path().join("gateway.db-wal");
    let elsewhere = folder.path().join("moved");
    for moved in [subject.path.clone(), wal] {
        assert!(accept().await.is_ok(), "it is in its place");
        std::fs::rename(&moved, &elsewhere).expect("moved");
        let refused = async || match accept().await {
            Err(AcceptError::Unavailable { source, .. }) => Some(source.to_string()),
            Err(other) => panic!("{other:?}"),
            Ok(_) => None,
        };
        let reason = eventually("it is noticed", WITHIN, refused).await;
        assert!(reason.contains("moved or replaced"), "{reason}");
        // By this look-up the gateway knows whether it is ready.
        let found = subject.store.find("", None).await;
        assert!(
            matches!(found, Err(AcceptError::Unavailable { .. })),
            "{found:?}"
        );
        std::fs::write(&moved, "another file").expect("written");
        let refused = accept().await;
        assert!(
            matches!(refused, Err(AcceptError::Unavailable { .. })),
            "{refused:?}"
        );
        std::fs::rename(&elsewhere, &moved).expect("moved back");
    }
    assert!(accept().await.is_ok(), "it is back");
}

#[tokio::test]
async fn an_event_leaves_the_outbox_with_its_row() {
    let folder = folder();
    let subject = InFile::open(folder.path()).await;
    let accepted = subject
        .store
        .accept(request(vec![event("k", "1", "1")]))
        .await;
    assert!(accepted.is_ok(), "{accepted:?}");
    let is_in_outbox = async || {
        let places = subject
            .store
            .find("1", None)
            .await
            .expect("the store answers");
        places[0].in_outbox
    };
    assert!(is_in_outbox().await);
    let mut connection = subject.connection().await;
    let published = sqlx::raw_sql("DELETE FROM evenkeel_outbox")
        .execute(&mut connection)
        .await;
    published.expect("the row is deleted");
    assert!(!is_in_outbox().await);
    let drained = || async { (subject.store.backlog().drained == 1).then_some(()) };
    eventually("the event counts as drained", WITHIN, drained).await;
    let status = OutboxStore::from(subject.store.outbox()).status().await;
    assert_eq!(status.expect("a status").pending, 0);
}

#[tokio::test]
async fn a_path_that_is_no_file_is_an_error() {
    let folder = folder();
    let refused = SqliteStore::open(folder.path())
        .await
        .expect_err("it is a folder");
    assert!(matches!(refused, StoreError::Outbox(_)), "{refused:?}");
}
