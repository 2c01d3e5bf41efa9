//! `effects`: one row inserted into SQLite for each event, in the same transaction as the inbox's row (WAL, synchronous=NORMAL).
//!
//! `sqlx` is the ceiling: the same two inserts in a transaction each, in a loop on one connection, without Kafka.

use crate::check::Check;
use crate::run::{evenkeel, rate};
use crate::sample::Sample;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use crate::usage::Moment;
use anyhow::bail;
use evenkeel::event::Event;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::inbox::{SqliteInbox, SqliteTx};
use evenkeel::testing::unique;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use std::path::Path;
use std::sync::Arc;

const EFFECTS: &str =
    "CREATE TABLE IF NOT EXISTS effects (key INTEGER, place INTEGER, total_cents INTEGER)";
const INSERT: &str = "INSERT INTO effects (key, place, total_cents) VALUES (?, ?, ?)";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant {
        name,
        data: Some(Data {
            records: 50_000,
            keys: 1_000,
            form: Form::Event,
            ..super::consume::DATA
        }),
    };
    Plan {
        title: "one effect an event in SQLite, inbox on, a transaction an event".to_owned(),
        unit: "events/s",
        contestants: ["sqlx", "evenkeel"].map(contestant).into(),
        aims: vec![Aim::new(
            "evenkeel",
            Figure::Value,
            Bound::AtLeast(10_000.0),
        )],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("effects.db");
    if spec.contestant == "sqlx" {
        return bare(spec, &path).await;
    }
    let check = Arc::new(Check::of(&spec.data));
    let seen = Arc::clone(&check);
    let group = unique("bench-effects");
    let inbox = SqliteInbox::open(&path, &group, EFFECTS).await?;
    let handle = move |event: Event<Sample>, mut tx: SqliteTx| {
        let seen = Arc::clone(&seen);
        async move {
            sqlx::query(INSERT)
                .bind(event.data.key)
                .bind(event.data.place as i64)
                .bind(event.data.total_cents)
                .execute(&mut *tx)
                .await?;
            seen.see_place(event.data.key.into(), event.data.place);
            Ok::<_, HandlerError>(())
        }
    };
    let router = Router::new().on(handle).with_inbox(inbox.clone());
    evenkeel(spec, router, |settings| settings.group = group).await?;
    let effects: i64 = sqlx::query_scalar("SELECT count(*) FROM effects")
        .fetch_one(inbox.pool())
        .await?;
    if effects as u64 != spec.data.records {
        bail!(
            "wrong answer: {effects} effects of {} events",
            spec.data.records
        );
    }
    rate(spec.data.records, check.finish()?)
}

async fn bare(spec: &Spec, path: &Path) -> anyhow::Result<Turn> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let inbox = "CREATE TABLE inbox (source TEXT, id TEXT, at INTEGER, PRIMARY KEY (source, id)) WITHOUT ROWID";
    sqlx::query(inbox).execute(&mut connection).await?;
    sqlx::query(EFFECTS).execute(&mut connection).await?;
    let begun = Moment::now();
    for number in 0..spec.data.records as i64 {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO inbox (source, id, at) VALUES (?, ?, ?)")
            .bind("/bench/samples")
            .bind(format!("{number:036}"))
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(INSERT)
            .bind(number % 1_000)
            .bind(number)
            .bind(number)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
    }
    rate(spec.data.records, Moment::now().since(&begun)?)
}
