//! The contract of the inbox in a file, and what the tests share.

mod locks;
mod opening;
mod outbox;
mod purge;
mod transactions;
mod turns;

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
    InboxKey::new("payments", "authorize", "/shop/orders", id)
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

    fn has_outbox(&self) -> bool {
        self.store().outbox.get().is_some()
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

async fn connect(file: &File) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file.path());
    SqliteConnection::connect_with(&options).await.unwrap()
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
    let digest: String = crate::inbox::sqlite::statements::digest_of(&long)
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
