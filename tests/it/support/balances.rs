//! Balances of accounts on either store: each step adds its number to a balance and is written to a journal, in the handler's transaction.
//!
//! No unique key guards them, so that a doubled effect would show.

use crate::support::Step;
use evenkeel::event::Event;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::inbox::{Inbox, PostgresInbox, PostgresTx, SqliteInbox, SqliteTx};
use evenkeel::testing::drills::{CrashPoint, Drills};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

const SQLITE: &str = "
CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, amount INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, number INTEGER NOT NULL)";

const POSTGRES: &str = "
CREATE TABLE IF NOT EXISTS balances (account text PRIMARY KEY, amount bigint NOT NULL);
CREATE TABLE IF NOT EXISTS journal (seq bigserial PRIMARY KEY, account text NOT NULL, number bigint NOT NULL)";

const BALANCE: &str = "
INSERT INTO balances (account, amount) VALUES ($1, $2)
ON CONFLICT (account) DO UPDATE SET amount = balances.amount + excluded.amount";

const JOURNAL: &str = "INSERT INTO journal (account, number) VALUES ($1, $2)";

/// Where the accounts are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Store {
    /// In this file.
    Sqlite(PathBuf),
    /// At this URL.
    Postgres(String),
}

/// The process crashes when it comes to this point for the `nth` time.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct CrashAt {
    pub(crate) point: CrashPoint,
    pub(crate) nth: u32,
}

/// Handlers of both stores differ in the transaction that they name.
macro_rules! book {
    ($name:ident, $transaction:ty) => {
        async fn $name(event: Event<Step>, mut tx: $transaction) -> Result<(), HandlerError> {
            let number = i64::try_from(event.data.number)?;
            for sql in [BALANCE, JOURNAL] {
                sqlx::query(sql)
                    .bind(&event.data.key)
                    .bind(number)
                    .execute(&mut *tx)
                    .await?;
            }
            Ok(())
        }
    };
}

book!(book_in_sqlite, SqliteTx);
book!(book_in_postgres, PostgresTx);

async fn open_sqlite(path: &std::path::Path, group: &str) -> SqliteInbox {
    let inbox = SqliteInbox::open(path, group, SQLITE).await;
    inbox.expect("the store opens")
}

async fn open_postgres(url: &str) -> PostgresInbox {
    let inbox = PostgresInbox::open(url, POSTGRES).await;
    inbox.expect("the store opens")
}

/// A router with the handler of this store, under drills if there are any.
pub(crate) async fn router(store: &Store, group: &str, drills: Option<&Drills>) -> Router {
    match store {
        Store::Sqlite(path) => {
            let router = Router::new().on(book_in_sqlite);
            with_inbox(router, open_sqlite(path, group).await, drills)
        }
        Store::Postgres(url) => {
            let router = Router::new().on(book_in_postgres);
            with_inbox(router, open_postgres(url).await, drills)
        }
    }
}

fn with_inbox(router: Router, inbox: impl Inbox, drills: Option<&Drills>) -> Router {
    match drills {
        Some(drills) => router.with_inbox(drills.inbox(inbox)),
        None => router.with_inbox(inbox),
    }
}

/// How many effects there are.
pub(crate) async fn effects(store: &Store) -> u64 {
    let count = "SELECT count(*) FROM journal";
    let count: i64 = match store {
        Store::Sqlite(path) => {
            // Whose group it is does not matter to a reader.
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_lazy_with(options);
            sqlx::query_scalar(count).fetch_one(&pool).await
        }
        Store::Postgres(url) => {
            let pool = sqlx::PgPool::connect_lazy(url).expect("a URL");
            sqlx::query_scalar(count).fetch_one(&pool).await
        }
    }
    .expect("the journal can be read");
    count as u64
}

/// Checks that each account has every number below `numbers` once, in order, and the balance that they add up to.
pub(crate) async fn check(store: &Store, accounts: u64, numbers: u64) {
    type Rows = Vec<(String, i64)>;
    let (journal, balances) = (
        "SELECT account, number FROM journal ORDER BY seq",
        "SELECT account, CAST(amount AS bigint) FROM balances",
    );
    let (journal, balances): (Rows, Rows) = match store {
        Store::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let pool = sqlx::SqlitePool::connect_lazy_with(options);
            (
                sqlx::query_as(journal)
                    .fetch_all(&pool)
                    .await
                    .expect("the query returns its rows"),
                sqlx::query_as(balances)
                    .fetch_all(&pool)
                    .await
                    .expect("the query returns its rows"),
            )
        }
        Store::Postgres(url) => {
            let pool = sqlx::PgPool::connect_lazy(url).expect("a URL");
            (
                sqlx::query_as(journal)
                    .fetch_all(&pool)
                    .await
                    .expect("the query returns its rows"),
                sqlx::query_as(balances)
                    .fetch_all(&pool)
                    .await
                    .expect("the query returns its rows"),
            )
        }
    };
    let mut order: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for (account, number) in journal {
        order.entry(account).or_default().push(number);
    }
    assert_eq!(order.len() as u64, accounts);
    for (account, seen) in &order {
        assert!(
            seen.iter().copied().eq(0..numbers as i64),
            "{account}: {seen:?}"
        );
    }
    let expected = (numbers * (numbers - 1) / 2) as i64;
    assert_eq!(balances.len() as u64, accounts);
    assert!(
        balances.iter().all(|(_, amount)| *amount == expected),
        "{expected} expected: {balances:?}"
    );
}
