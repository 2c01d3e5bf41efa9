//! The cases that concern only a store in a shared file.

use super::{Durability, SqliteCompletions, SqliteInbox, SqliteSettings, SqliteTx, tables};
use crate::inbox::conformance::{self, Effects, Forgetting};
use crate::inbox::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey, completions};
use sqlx::{Connection, SqliteConnection};
use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS effects (name TEXT NOT NULL)";

struct File {
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    /// Another instance on the same file: like another process, it shares nothing but the file.
    async fn open(&self) -> SqliteInbox {
        SqliteInbox::open(&self.path(), "payments", SCHEMA)
            .await
            .unwrap()
    }

    /// Like [`File::open`], with a short lock timeout.
    async fn open_impatient(&self) -> SqliteInbox {
        let settings =
            SqliteSettings::new("payments", SCHEMA).with_lock_timeout(Duration::from_millis(50));
        SqliteInbox::open_with(&self.path(), &settings)
            .await
            .unwrap()
    }
}

fn key(id: &str) -> InboxKey {
    InboxKey {
        group: "payments".to_owned(),
        handler: "authorize".to_owned(),
        source: "/shop/orders".to_owned(),
        id: id.to_owned(),
        content: None,
    }
}

async fn fresh(inbox: &SqliteInbox, id: &str) -> Box<dyn Claim> {
    match inbox.claim(&key(id)).await.unwrap() {
        Claimed::Fresh(claim) => claim,
        Claimed::Duplicate { .. } => panic!("{id} is a duplicate"),
    }
}

async fn is_duplicate(inbox: &SqliteInbox, id: &str) -> bool {
    matches!(
        inbox.claim(&key(id)).await.unwrap(),
        Claimed::Duplicate { .. }
    )
}

fn transaction(claim: &mut Box<dyn Claim>) -> SqliteTx {
    *claim.transaction().unwrap().downcast().unwrap()
}

async fn write(transaction: &mut SqliteTx, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO effects (name) VALUES (?)")
        .bind(name)
        .execute(&mut **transaction)
        .await
        .map(drop)
}

async fn count(inbox: &SqliteInbox, name: &str) -> u64 {
    sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = ?")
        .bind(name)
        .fetch_one(inbox.pool())
        .await
        .unwrap()
}

async fn refused(path: &Path, group: &str) -> String {
    match SqliteInbox::open(path, group, SCHEMA).await {
        Err(InboxError::Foreign { path, reason }) => format!("{path} {reason}"),
        Err(error) => panic!("refused, but as {error:?}"),
        Ok(_) => panic!("not refused"),
    }
}

impl Effects for SqliteInbox {
    fn write<'a>(&'a self, transaction: Box<dyn Any + Send>, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let mut transaction = transaction.downcast::<SqliteTx>().unwrap();
            write(&mut transaction, name).await.unwrap();
        })
    }

    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, u64> {
        Box::pin(count(self, name))
    }
}

/// `PRAGMA synchronous` in a claim's transaction.
async fn synchronous(inbox: &SqliteInbox) -> u32 {
    let mut claim = fresh(inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let synchronous = sqlx::query_scalar("PRAGMA synchronous");
    synchronous.fetch_one(&mut *transaction).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_when_commits_wait_for_the_disk() {
    let file = File::new();
    let inbox = Arc::new(file.open().await);
    assert_eq!(synchronous(&inbox).await, 2, "2 is FULL, the default");
    conformance::check(inbox.clone(), Some(inbox)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_inbox_keeps_the_contract_when_none_does() {
    let file = File::new();
    let settings =
        SqliteSettings::new("payments", SCHEMA).with_durability(Durability::ProcessCrash);
    let inbox = SqliteInbox::open_with(&file.path(), &settings)
        .await
        .unwrap();
    assert_eq!(synchronous(&inbox).await, 1, "1 is NORMAL");
    let inbox = Arc::new(inbox);
    conformance::check(inbox.clone(), Some(inbox)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_instances_can_open_a_new_file() {
    let file = Arc::new(File::new());
    let openers: Vec<_> = (0..8)
        .map(|_| {
            let file = file.clone();
            tokio::spawn(async move { file.open().await })
        })
        .collect();
    for opener in openers {
        let inbox = opener.await.unwrap();
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
            .fetch_one(inbox.pool())
            .await
            .unwrap();
        assert_eq!(mode, "wal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_on_one_file_have_each_effect_once() {
    let file = File::new();
    let mut racers = Vec::new();
    for _ in 0..2 {
        let inbox = file.open().await;
        racers.extend((0..4).map(|_| {
            let inbox = inbox.clone();
            tokio::spawn(async move {
                for id in 0..50 {
                    let id = id.to_string();
                    if let Claimed::Fresh(mut claim) = inbox.claim(&key(&id)).await.unwrap() {
                        let mut transaction = transaction(&mut claim);
                        write(&mut transaction, &id).await.unwrap();
                        drop(transaction);
                        claim.complete(Vec::new()).await.unwrap();
                    }
                }
            })
        }));
    }
    for racer in racers {
        racer.await.unwrap();
    }
    let inbox = file.open().await;
    for id in 0..50 {
        assert_eq!(count(&inbox, &id.to_string()).await, 1, "event {id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_a_long_queue_does_not_starve_another() {
    let file = File::new();
    let (busy, modest) = (file.open().await, file.open().await);
    let stop = tokio_util::sync::CancellationToken::new();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (inbox, stop) = (busy.clone(), stop.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.is_cancelled() {
                        return;
                    }
                    let claim = fresh(&inbox, &format!("busy {writer} {n}")).await;
                    // A slow handler: the lock is held nearly all the time.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    claim.complete(Vec::new()).await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..10 {
        let claim = fresh(&modest, &format!("modest {n}")).await;
        claim.complete(Vec::new()).await.unwrap();
    }
    stop.cancel();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_foreign_lock_is_unavailable_until_it_is_released() {
    let file = File::new();
    let (keeper, other) = (file.open().await, file.open_impatient().await);
    let kept = fresh(&keeper, "1").await;
    match other.claim(&key("2")).await {
        Err(error @ InboxError::Unavailable(_)) => {
            let message = error.to_string();
            assert!(
                message.contains("another process holds the write lock"),
                "{message}"
            );
            assert!(message.contains("store.db"), "{message}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("two writers at once"),
    }
    kept.complete(Vec::new()).await.unwrap();
    fresh(&other, "2").await.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&other, "1").await);
}

#[tokio::test]
async fn a_crash_inside_a_transaction_leaves_nothing() {
    let file = File::new();
    let survivor = file.open().await;
    let dying = file.open().await;
    let mut claim = fresh(&dying, "1").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "1").await.unwrap();
    drop((claim, transaction, dying));
    fresh(&survivor, "1")
        .await
        .complete(Vec::new())
        .await
        .unwrap();
    assert_eq!(count(&survivor, "1").await, 0);
}

#[tokio::test]
async fn a_foreign_or_newer_store_is_refused_untouched() {
    let file = File::new();
    file.open().await.close().await;
    let message = refused(&file.path(), "inventory").await;
    assert!(
        message.contains("belongs to the group \"payments\""),
        "{message}"
    );
    assert!(message.contains("store of its own"), "{message}");

    let mut connection = connect(&file).await;
    let newer = (tables::VERSION + 1).to_string();
    sqlx::query("UPDATE evenkeel_meta SET value = ? WHERE name = 'version'")
        .bind(&newer)
        .execute(&mut connection)
        .await
        .unwrap();
    let message = refused(&file.path(), "payments").await;
    assert!(message.contains("run the newer release"), "{message}");
    let stored: String =
        sqlx::query_scalar("SELECT value FROM evenkeel_meta WHERE name = 'version'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!(stored, newer, "a refused store is not written to");
}

#[tokio::test]
async fn a_store_of_version_one_is_migrated() {
    let file = File::new();
    let inbox = file.open().await;
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    inbox.close().await;
    let mut connection = connect(&file).await;
    sqlx::raw_sql(
        "ALTER TABLE evenkeel_inbox DROP COLUMN content;
         DROP TABLE evenkeel_open;
         DROP TABLE evenkeel_never;
         UPDATE evenkeel_meta SET value = '1' WHERE name = 'version';
         INSERT INTO evenkeel_inbox SELECT consumer_group, handler, source, '2', NULL, NULL FROM evenkeel_inbox",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    drop(connection);
    let inbox = file.open().await;
    assert!(is_duplicate(&inbox, "1").await);
    // A row left by a handler that committed by hand: it was never completed.
    fresh(&inbox, "2").await.complete(Vec::new()).await.unwrap();
    assert!(is_duplicate(&inbox, "2").await);
}

async fn connect(file: &File) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    SqliteConnection::connect_with(&options).await.unwrap()
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let file = File::new();
    std::fs::write(
        file.path(),
        "not a database, but long enough to have a header".repeat(4),
    )
    .unwrap();
    let message = refused(&file.path(), "payments").await;
    assert!(message.contains("is no SQLite database"), "{message}");
    let message = refused(Path::new(":memory:"), "payments").await;
    assert!(message.contains("is no file"), "{message}");
}

#[tokio::test]
async fn a_path_that_cannot_be_opened_reports_the_remedy() {
    let file = File::new();
    let path = file.directory.path().join("absent").join("store.db");
    match SqliteInbox::open(&path, "payments", SCHEMA).await {
        Err(error @ InboxError::NotWritable(_)) => {
            let message = error.to_string();
            assert!(message.contains("directory exists"), "{message}");
        }
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("opened"),
    }
}

#[tokio::test]
async fn a_full_disk_is_reported_and_nothing_is_half_written() {
    let file = File::new();
    let inbox = file.open().await;
    fresh(&inbox, "before")
        .await
        .complete(Vec::new())
        .await
        .unwrap();
    let pages: u32 = sqlx::query_scalar("PRAGMA page_count")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    // The limit applies to the connection; a value below the present size means the present size.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "PRAGMA max_page_count = {pages}"
    )))
    .execute(&inbox.store().writer)
    .await
    .unwrap();
    let mut claim = fresh(&inbox, "full").await;
    let mut transaction = transaction(&mut claim);
    write(&mut transaction, "full").await.unwrap();
    drop(transaction);
    match claim
        .complete(vec![conformance::record(&"x".repeat(100_000))])
        .await
    {
        Err(error @ InboxError::NotWritable(_)) => {
            let message = error.to_string();
            assert!(message.contains("free some space"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&inbox, "full").await, 0);
    sqlx::raw_sql("PRAGMA max_page_count = 1000000")
        .execute(&inbox.store().writer)
        .await
        .unwrap();
    fresh(&inbox, "full")
        .await
        .complete(vec![conformance::record(&"x".repeat(100_000))])
        .await
        .unwrap();
    assert!(is_duplicate(&inbox, "before").await);
}

#[tokio::test]
async fn a_handlers_rollback_is_detected_and_loses_no_event() {
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let file = File::new();
        let inbox = file.open().await;
        for end in [true, false] {
            let mut claim = fresh(&inbox, "1").await;
            let mut transaction = transaction(&mut claim);
            write(&mut transaction, "1").await.unwrap();
            sqlx::raw_sql(sql).execute(&mut *transaction).await.unwrap();
            drop(transaction);
            if end {
                let error = claim.complete(Vec::new()).await.unwrap_err();
                assert!(
                    matches!(error, InboxError::Transaction { .. }),
                    "{sql}: {error:?}"
                );
            } else {
                drop(claim);
            }
        }
        fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
        assert!(is_duplicate(&inbox, "1").await, "{sql}");
        assert_eq!(count(&inbox, "1").await, 0);
    }
}

#[tokio::test]
async fn a_handlers_own_commit_is_refused_and_loses_nothing() {
    for sql in ["COMMIT", "COMMIT; BEGIN", "RELEASE evenkeel_claim; COMMIT"] {
        let file = File::new();
        let inbox = file.open().await;
        let mut claim = fresh(&inbox, "1").await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, "1").await.unwrap();
        let refused = sqlx::raw_sql(sql).execute(&mut *transaction).await;
        assert!(refused.is_err(), "{sql}");
        drop(transaction);
        let completed = claim.complete(Vec::new()).await;
        let is_kept = completed.is_ok();
        assert_eq!(is_kept, !sql.starts_with("RELEASE"), "{sql}: {completed:?}");
        assert_eq!(is_duplicate(&inbox, "1").await, is_kept);
        assert_eq!(count(&inbox, "1").await, u64::from(is_kept));
    }
}

#[tokio::test]
async fn a_handlers_own_savepoints_are_part_of_its_transaction() {
    let file = File::new();
    let inbox = file.open().await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let nested = transaction.begin().await.unwrap();
    nested.rollback().await.unwrap();
    write(&mut transaction, "1").await.unwrap();
    drop(transaction.begin().await.unwrap());
    drop(transaction);
    claim.complete(Vec::new()).await.unwrap();
    assert_eq!(count(&inbox, "1").await, 1);
}

/// The store is free again when the task ends.
#[tokio::test]
async fn a_transaction_moved_into_a_task_commits_nothing() {
    let file = File::new();
    let inbox = file.open().await;
    let mut claim = fresh(&inbox, "1").await;
    let mut transaction = transaction(&mut claim);
    let (finish, finished) = tokio::sync::oneshot::channel::<()>();
    let leak = tokio::spawn(async move {
        write(&mut transaction, "1").await.unwrap();
        finished.await.unwrap();
    });
    let error = claim.complete(Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("still holds it"), "{error}");
    finish.send(()).unwrap();
    leak.await.unwrap();
    fresh(&inbox, "1").await.complete(Vec::new()).await.unwrap();
    assert_eq!(count(&inbox, "1").await, 0);
}

#[tokio::test]
async fn purging_forgets_old_completions_in_batches_and_keeps_young_ones() {
    let file = File::new();
    let inbox = file.open().await;
    for id in 0..25 {
        fresh(&inbox, &id.to_string())
            .await
            .complete(Vec::new())
            .await
            .unwrap();
    }
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 0);
    sqlx::query("UPDATE evenkeel_inbox SET completed_at = completed_at - ? WHERE id <> '7'")
        .bind(2 * 24 * 3600 * 1000_i64)
        .execute(&inbox.store().writer)
        .await
        .unwrap();
    assert_eq!(inbox.purge(day, 10).await.unwrap(), 24);
    assert!(is_duplicate(&inbox, "7").await);
    assert!(!is_duplicate(&inbox, "8").await);
}

struct Purged(SqliteInbox, PathBuf);

impl Forgetting for Purged {
    fn forget<'a>(&'a self) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // A delivery completed in this very millisecond is not older than it.
            tokio::time::sleep(Duration::from_millis(2)).await;
            self.0.purge(Duration::ZERO, 10).await.unwrap();
        })
    }

    fn open(&self) -> BoxFuture<'static, Arc<dyn Inbox>> {
        let path = self.1.clone();
        Box::pin(async move {
            let inbox = SqliteInbox::open(&path, "payments", SCHEMA).await.unwrap();
            Arc::new(inbox) as Arc<dyn Inbox>
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_inbox_reports_its_purge_watermark() {
    let file = File::new();
    conformance::check_forgetting(Arc::new(Purged(file.open().await, file.path()))).await;
}

/// A purge that deletes nothing sets no time.
#[tokio::test]
async fn purges_that_delete_less_never_lower_the_forgotten_time() {
    let file = File::new();
    let inbox = file.open().await;
    inbox.purge(Duration::ZERO, 10).await.unwrap();
    assert_eq!(inbox.forgotten_before_ms(), None);
    for (id, completed_ms) in [("1", 5_000), ("2", 1_000)] {
        fresh(&inbox, id).await.complete(Vec::new()).await.unwrap();
        sqlx::query("UPDATE evenkeel_inbox SET completed_at = ? WHERE id = ?")
            .bind(completed_ms)
            .bind(id)
            .execute(&inbox.store().writer)
            .await
            .unwrap();
        inbox.purge(Duration::from_secs(60), 10).await.unwrap();
        // A process opened later knows the stored time, and no more.
        let later = file.open().await;
        drop(fresh(&later, "later").await);
        assert_eq!(later.forgotten_before_ms(), Some(5_001));
        assert_eq!(inbox.forgotten_before_ms(), Some(5_001));
    }
}

#[tokio::test]
async fn the_pool_for_reading_refuses_to_write() {
    let file = File::new();
    let inbox = file.open().await;
    let written = sqlx::query("INSERT INTO effects (name) VALUES ('x')")
        .execute(inbox.pool())
        .await;
    assert!(written.is_err());
}

#[tokio::test]
async fn published_events_commit_with_the_effect_or_not_at_all() {
    use crate::outbox::SqliteOutbox;
    let file = File::new();
    let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
    let inbox = file.open().await.with_outbox(outbox).unwrap();
    let published = || vec![conformance::record("1"), conformance::record("2")];
    for id in ["kept", "undone"] {
        let mut claim = fresh(&inbox, id).await;
        let mut transaction = transaction(&mut claim);
        write(&mut transaction, id).await.unwrap();
        drop(transaction);
        if id == "kept" {
            let unsent = claim.complete(published()).await.unwrap();
            assert!(unsent.is_empty(), "the relay publishes it");
        } else {
            claim.abandon().await.unwrap();
        }
    }
    let waiting = "SELECT payload FROM evenkeel_outbox ORDER BY sequence";
    let waiting: Vec<Vec<u8>> = sqlx::query_scalar(waiting)
        .fetch_all(inbox.pool())
        .await
        .unwrap();
    assert_eq!(waiting, [b"1", b"2"]);
    assert!(is_duplicate(&inbox, "kept").await);
    let claim = fresh(&inbox, "undone").await;
    claim.complete(published()).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert_eq!(count, 4);
}

/// Outside of a transaction the event would be published, and again when its delivery is retried.
#[tokio::test]
async fn events_of_a_manually_rolled_back_transaction_are_not_published() {
    use crate::outbox::SqliteOutbox;
    for sql in ["ROLLBACK", "ROLLBACK; BEGIN"] {
        let file = File::new();
        let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
        let inbox = file.open().await.with_outbox(outbox).unwrap();
        let mut claim = fresh(&inbox, "1").await;
        let mut transaction = transaction(&mut claim);
        sqlx::raw_sql(sql).execute(&mut *transaction).await.unwrap();
        drop(transaction);
        let error = claim.complete(vec![conformance::record("1")]).await;
        let error = error.expect_err(sql);
        assert!(
            matches!(error, InboxError::Transaction { .. }),
            "{sql}: {error:?}"
        );
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM evenkeel_outbox")
            .fetch_one(inbox.pool())
            .await
            .unwrap();
        assert_eq!(left, 0, "{sql}");
    }
}

#[tokio::test]
async fn the_outbox_of_another_file_is_refused() {
    use crate::outbox::SqliteOutbox;
    let (file, other) = (File::new(), File::new());
    let outbox = SqliteOutbox::open(&other.path()).await.unwrap();
    let Err(error) = file.open().await.with_outbox(outbox) else {
        panic!("it is of another file");
    };
    assert!(
        error.to_string().contains("open both on one file"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_outbox_the_contract_holds_too() {
    use crate::outbox::SqliteOutbox;
    let file = File::new();
    let outbox = SqliteOutbox::open(&file.path()).await.unwrap();
    let inbox = file.open().await.with_outbox(outbox).unwrap();
    let inbox = Arc::new(inbox);
    conformance::check(inbox.clone(), Some(inbox)).await;
}

#[tokio::test]
async fn the_sqlite_inbox_reports_completions_without_changing_anything() {
    let file = File::new();
    let inbox = file.open().await;
    let reader = SqliteCompletions::open(&file.path(), "payments")
        .await
        .unwrap();
    completions::conformance::check("payments", &inbox, &reader).await;
    completions::conformance::check("payments", &inbox, &inbox.completions()).await;
    let written = sqlx::query("DELETE FROM evenkeel_inbox")
        .execute(&reader.pool)
        .await;
    assert!(written.is_err());
}

#[tokio::test]
async fn only_a_store_of_the_group_and_version_is_read() {
    let file = File::new();
    let open = async |group| SqliteCompletions::open(&file.path(), group).await;
    assert!(open("payments").await.is_err());
    assert!(!file.path().exists(), "looking makes no file");
    let inbox = file.open().await;
    let error = open("another").await.err().unwrap();
    assert!(matches!(error, InboxError::Foreign { .. }), "{error}");
    for (version, is_readable) in [("2", false), ("3", true), ("4", false)] {
        sqlx::query("UPDATE evenkeel_meta SET value = ? WHERE name = 'version'")
            .bind(version)
            .execute(&inbox.store().writer)
            .await
            .unwrap();
        assert_eq!(open("payments").await.is_ok(), is_readable, "{version}");
    }
}

#[tokio::test]
async fn a_long_id_takes_little_room_and_stays_unique() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let inbox = SqliteInbox::open(&path, "group", "").await.unwrap();
    let long = "x".repeat(1_000_000);
    let of = |source: &str, id: &str| InboxKey {
        source: source.to_owned(),
        id: id.to_owned(),
        ..key("1")
    };
    let digest: String = crate::inbox::shared::digest::of_text(&long)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let keys = [
        of("/s", &long),
        of(&long, "1"),
        of("/s", &format!("{long}y")),
        of("/s", &digest),
    ];
    for (at, key) in keys.iter().enumerate() {
        let claimed = inbox.claim(key).await.unwrap();
        let Claimed::Fresh(claim) = claimed else {
            panic!("{at} is taken for another");
        };
        claim.complete(Vec::new()).await.unwrap();
        let again = inbox.claim(key).await.unwrap();
        assert!(matches!(again, Claimed::Duplicate { .. }), "{at}");
    }
    let longest =
        "SELECT max(length(CAST(id AS BLOB)) + length(CAST(source AS BLOB))) FROM evenkeel_inbox";
    let longest: i64 = sqlx::query_scalar(longest)
        .fetch_one(inbox.pool())
        .await
        .unwrap();
    assert!(longest < 100, "{longest} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_claims_on_a_locked_file_fail_within_seconds() {
    let file = File::new();
    let inbox = file.open().await;
    let path = format!("sqlite:{}", file.path().display());
    let mut locker = SqliteConnection::connect(&path).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut locker)
        .await
        .unwrap();
    let began = std::time::Instant::now();
    let claims = (0..40).map(|id| {
        let inbox = inbox.clone();
        async move { inbox.claim(&key(&id.to_string())).await.map(drop) }
    });
    let claimed = futures_util::future::join_all(claims).await;
    assert!(
        claimed
            .iter()
            .all(|claimed| matches!(claimed, Err(InboxError::Unavailable(_))))
    );
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    sqlx::raw_sql("COMMIT").execute(&mut locker).await.unwrap();
    drop(fresh(&inbox, "1").await);
}
