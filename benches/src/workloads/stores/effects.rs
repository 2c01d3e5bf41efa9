//! `effects`: inserts one row for each event, in the same transaction as the inbox row. Every
//! commit waits for the disk.
//!
//! For each store there are three contestants. The first uses one transaction per event, like a
//! service without group commit. The second shares transactions by group commit. The last is a
//! batch handler, which inserts the rows of its events in one statement.

use crate::measure::result_check::ResultCheck;
use crate::measure::run::{evenkeel, rate};
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::event::Event;
use evenkeel::handler::{Delivered, HandlerError, Router};
use evenkeel::inbox::{
    PostgresInbox, PostgresSettings, PostgresTx, SqliteInbox, SqliteSettings, SqliteTx,
};
use evenkeel::testing::{TestPostgres, unique};
use sqlx::{QueryBuilder, Sqlite};
use std::sync::Arc;

const EFFECTS: &str =
    "CREATE TABLE IF NOT EXISTS effects (key INTEGER, place BIGINT, total_cents BIGINT)";
const INSERT: &str = "INSERT INTO effects (key, place, total_cents) VALUES ($1, $2, $3)";
const COUNT: &str = "SELECT count(*) FROM (SELECT DISTINCT key, place FROM effects) AS effects";

/// The concurrency. A batch consists of events that wait while the previous one runs, so batches
/// need a higher one.
fn concurrency(mode: CommitMode) -> usize {
    match mode {
        CommitMode::Single | CommitMode::Group => 256,
        CommitMode::Batch => 1_000,
    }
}

pub(crate) fn plan() -> Plan {
    let contestant = |(name, records)| Contestant {
        name,
        data: Some(Data {
            records,
            keys: 1_000,
            form: Form::Event,
            ..crate::workloads::throughput::consume::DATA
        }),
    };
    let contestants = [
        ("sqlite-single", 20_000),
        ("sqlite", 100_000),
        ("sqlite-batch", 200_000),
        ("postgres-single", 20_000),
        ("postgres", 100_000),
        ("postgres-batch", 200_000),
    ];
    let aim = |contestant, figure, bound| Aim::new(contestant, figure, Bound::AtLeast(bound));
    Plan {
        title: "one effect an event, inbox on, the disk waited for".to_owned(),
        unit: "events/s",
        contestants: contestants.map(contestant).into(),
        aims: vec![
            aim("sqlite", Figure::RatioTo("sqlite-single"), 5.0),
            aim("sqlite", Figure::Value, 40_000.0),
            aim("sqlite-batch", Figure::Value, 60_000.0),
            aim("postgres", Figure::RatioTo("postgres-single"), 10.0),
            aim("postgres", Figure::Value, 15_000.0),
            aim("postgres-batch", Figure::Value, 60_000.0),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let (store, mode) = match spec.contestant.split_once('-') {
        Some((store, "single")) => (store, CommitMode::Single),
        Some((store, _)) => (store, CommitMode::Batch),
        None => (spec.contestant.as_str(), CommitMode::Group),
    };
    match store {
        "sqlite" => sqlite(spec, mode).await,
        _ => postgres(spec, mode).await,
    }
}

/// How events take effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CommitMode {
    /// One transaction per event.
    Single,
    /// Group commit: events that are ready share a transaction.
    Group,
    /// A batch handler.
    Batch,
}

/// The handlers of both stores differ in the type of their transaction.
macro_rules! insert {
    ($check:expr, $transaction:ty) => {{
        let handler_check = Arc::clone(&$check);
        move |event: Event<OrderEvent>, mut tx: $transaction| {
            let handler_check = Arc::clone(&handler_check);
            async move {
                sqlx::query(INSERT)
                    .bind(event.data.key as i32)
                    .bind(event.data.place as i64)
                    .bind(event.data.total_cents as i64)
                    .execute(&mut *tx)
                    .await?;
                handler_check.check_position(event.data.key.into(), event.data.place);
                Ok::<_, HandlerError>(())
            }
        }
    }};
}

/// The same for a batch handler, in one statement.
macro_rules! insert_all {
    ($check:expr, $transaction:ty, $insert:expr) => {{
        let handler_check = Arc::clone(&$check);
        move |events: Vec<Delivered<OrderEvent>>, mut tx: $transaction| {
            let handler_check = Arc::clone(&handler_check);
            async move {
                $insert(&mut tx, &events).await?;
                for Delivered { event, .. } in &events {
                    handler_check.check_position(event.data.key.into(), event.data.place);
                }
                Ok::<_, HandlerError>(())
            }
        }
    }};
}

async fn insert_in_sqlite(
    tx: &mut SqliteTx,
    events: &[Delivered<OrderEvent>],
) -> Result<(), sqlx::Error> {
    let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO effects (key, place, total_cents) ");
    insert.push_values(events, |mut row, Delivered { event, .. }| {
        row.push_bind(event.data.key as i32)
            .push_bind(event.data.place as i64)
            .push_bind(event.data.total_cents);
    });
    insert.build().execute(&mut **tx).await.map(drop)
}

async fn insert_in_postgres(
    tx: &mut PostgresTx,
    events: &[Delivered<OrderEvent>],
) -> Result<(), sqlx::Error> {
    let column = |member: fn(&OrderEvent) -> i64| -> Vec<i64> {
        let samples = events.iter().map(|delivered| &delivered.event.data);
        samples.map(member).collect()
    };
    let insert = sqlx::query(
        "INSERT INTO effects SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])",
    )
    .bind(column(|sample| sample.key.into()))
    .bind(column(|sample| sample.place as i64))
    .bind(column(|sample| sample.total_cents));
    insert.execute(&mut **tx).await.map(drop)
}

async fn sqlite(spec: &Spec, mode: CommitMode) -> anyhow::Result<Turn> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("effects.db");
    let group = unique("bench-effects");
    let settings = SqliteSettings::new(&group, EFFECTS);
    let settings = match mode {
        CommitMode::Single => settings.with_group_max(1),
        CommitMode::Group | CommitMode::Batch => settings,
    };
    let inbox = SqliteInbox::open_with(&path, &settings).await?;
    let check = Arc::new(ResultCheck::of(&spec.data));
    let router = match mode {
        CommitMode::Batch => Router::new().on_batch(insert_all!(check, SqliteTx, insert_in_sqlite)),
        CommitMode::Single | CommitMode::Group => Router::new().on(insert!(check, SqliteTx)),
    };
    run(spec, mode, router.with_inbox(inbox.clone()), group).await?;
    let effects: i64 = sqlx::query_scalar(COUNT).fetch_one(inbox.pool()).await?;
    finish(spec, &check, effects)
}

async fn postgres(spec: &Spec, mode: CommitMode) -> anyhow::Result<Turn> {
    let server = TestPostgres::start().await.context("no PostgreSQL")?;
    let settings = PostgresSettings::new(EFFECTS);
    let settings = match mode {
        CommitMode::Single => settings.with_group_max(1),
        CommitMode::Group | CommitMode::Batch => settings,
    };
    let inbox = PostgresInbox::open_with(&server.database().await?, &settings).await?;
    let check = Arc::new(ResultCheck::of(&spec.data));
    let router = match mode {
        CommitMode::Batch => {
            Router::new().on_batch(insert_all!(check, PostgresTx, insert_in_postgres))
        }
        CommitMode::Single | CommitMode::Group => Router::new().on(insert!(check, PostgresTx)),
    };
    let group = unique("bench-effects");
    run(spec, mode, router.with_inbox(inbox.clone()), group).await?;
    let effects: i64 = sqlx::query_scalar(COUNT).fetch_one(inbox.pool()).await?;
    finish(spec, &check, effects)
}

async fn run(spec: &Spec, mode: CommitMode, router: Router, group: String) -> anyhow::Result<()> {
    evenkeel(spec, router, |settings| {
        settings.group = group;
        settings.concurrency = concurrency(mode);
    })
    .await
}

fn finish(spec: &Spec, check: &ResultCheck, effects: i64) -> anyhow::Result<Turn> {
    if effects as u64 != spec.data.records {
        let events = spec.data.records;
        bail!("wrong answer: {effects} effects of {events} events");
    }
    rate(spec.data.records, check.finish()?)
}
