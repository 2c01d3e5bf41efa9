//! `relay`: an outbox is full of rows of many keys, and one relay publishes them. The time counts
//! from its start until the last row is acknowledged and deleted.
//!
//! The rows are written before, through the outbox, in transactions of 500. `sqlite` and `postgres`
//! are evenkeel's relay with its defaults. `sqlite-raw` and `postgres-raw` are a loop written by
//! hand (`hand_written`) on the same rows, with the producer's properties of evenkeel's publisher.
//! Processor time is that of this process: SQLite is part of it, the server of PostgreSQL is not.

use super::events::{SOURCE, check_topic, transactions};
use super::hand_written::{self, Table};
use crate::measure::run::rate;
use crate::measure::usage::{Usage, UsageReading};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::outbox::{OutboxStore, PostgresOutbox, Relay, SqliteOutbox};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::TestPostgres;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tokio_util::sync::CancellationToken;

/// The events, unless the user chooses other sizes.
pub(crate) const DATA: Data = Data {
    records: 100_000,
    form: Form::Event,
    ..crate::workloads::throughput::consume::DATA
};

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let aim = |contestant| Aim::new(contestant, Figure::Value, Bound::AtLeast(20_000.0));
    Plan {
        title: "a relay publishes a full outbox of many keys".to_owned(),
        unit: "events/s",
        contestants: ["sqlite-raw", "sqlite", "postgres-raw", "postgres"]
            .map(contestant)
            .into(),
        aims: ["sqlite", "postgres"].map(aim).into(),
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let (store, by_hand) = match spec.contestant.strip_suffix("-raw") {
        Some(store) => (store, true),
        None => (spec.contestant.as_str(), false),
    };
    let (spent, left) = match store {
        "sqlite" => Box::pin(sqlite(spec, by_hand)).await?,
        _ => Box::pin(postgres(spec, by_hand)).await?,
    };
    if left > 0 {
        bail!("wrong answer: {left} rows are left in the outbox");
    }
    let turn = rate(spec.data.records, spent)?;
    check_topic(spec).await?;
    Ok(turn)
}

/// Fills an outbox in a new file, and empties it. Returns the number of rows that are left, too.
async fn sqlite(spec: &Spec, by_hand: bool) -> anyhow::Result<(Usage, i64)> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("relay.db");
    let outbox = SqliteOutbox::open(&path).await?;
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await?;
    for records in transactions(spec) {
        let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
        outbox.publish_records(&mut transaction, &records?).await?;
        transaction.commit().await?;
    }
    empty(spec, &Table::Sqlite(pool), outbox, by_hand).await
}

/// Like [`sqlite`], in a PostgreSQL of its own.
async fn postgres(spec: &Spec, by_hand: bool) -> anyhow::Result<(Usage, i64)> {
    let server = TestPostgres::start().await.context("no PostgreSQL")?;
    let outbox = PostgresOutbox::open(&server.database().await?).await?;
    let pool = outbox.pool().clone();
    for records in transactions(spec) {
        let mut transaction = pool.begin().await?;
        outbox.publish_records(&mut transaction, &records?).await?;
        transaction.commit().await?;
    }
    // Autovacuum does it once a minute: it has done so before a service has such a backlog, and
    // must not do it in some of the turns only.
    sqlx::query("ANALYZE evenkeel_outbox")
        .execute(&pool)
        .await?;
    empty(spec, &Table::Postgres(pool), outbox, by_hand).await
}

/// Publishes all rows of the outbox, whose table is `table`. Returns the number of rows that are
/// left, too.
async fn empty(
    spec: &Spec,
    table: &Table,
    outbox: impl Into<OutboxStore>,
    by_hand: bool,
) -> anyhow::Result<(Usage, i64)> {
    let spent = match by_hand {
        true => hand_written::publish(spec, table).await?,
        false => publish(spec, outbox).await?,
    };
    Ok((spent, table.rows().await?))
}

/// Publishes all rows of an outbox by evenkeel's relay.
async fn publish(spec: &Spec, outbox: impl Into<OutboxStore>) -> anyhow::Result<Usage> {
    let publisher = Publisher::new(&spec.kafka()?, PublisherSettings::new(SOURCE))?;
    let relay = Relay::new(outbox, publisher);
    let begun = UsageReading::now();
    let report = Box::pin(relay.drain(CancellationToken::new())).await?;
    let spent = UsageReading::now().since(&begun)?;
    if report.published != spec.data.records || report.failed > 0 || report.unacknowledged > 0 {
        bail!("wrong answer: {report:?}");
    }
    Ok(spent)
}
