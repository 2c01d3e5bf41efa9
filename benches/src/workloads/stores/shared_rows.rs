//! `shared-rows`: handlers that update a few rows of PostgreSQL, like balances, stock and counters.
//!
//! Several connections cannot be faster than one here, because every group needs the rows of every
//! other. The measurement shows their loss: without countermeasures, each deadlock costs a second.

use crate::measure::run::{rate, wait_for_effects};
use crate::measure::usage::UsageReading;
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use anyhow::Context;
use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::Event;
use evenkeel::handler::{HandlerError, Router};
use evenkeel::inbox::{PostgresInbox, PostgresSettings, PostgresTx};
use evenkeel::testing::{TestPostgres, unique};
use sqlx::PgPool;
use std::sync::{Arc, OnceLock};
use tokio_util::sync::CancellationToken;

/// Maximum number of events that are ready at the same time.
const CONCURRENCY: usize = 64;

/// Number of rows that all events share.
const ROWS: u32 = 20;

const STOCK: &str =
    "CREATE TABLE IF NOT EXISTS stock (article BIGINT PRIMARY KEY, n BIGINT NOT NULL)";
const FILL: &str = "INSERT INTO stock SELECT article, 0 FROM generate_series(0, $1) AS article";
const TAKEN: &str = "SELECT coalesce(sum(n), 0)::bigint FROM stock";
const TAKE: &str = "UPDATE stock SET n = n + 1 WHERE article = $1";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant {
        name,
        data: Some(Data {
            records: 8_000,
            keys: 1_000,
            form: Form::Event,
            ..crate::workloads::throughput::consume::DATA
        }),
    };
    let names = ["1", "2", "4", "8", "4-of-two"];
    let aim = |contestant| Aim::new(contestant, Figure::RatioTo("1"), Bound::AtLeast(0.8));
    Plan {
        title: format!("one of {ROWS} rows updated for each event, by number of connections"),
        unit: "events/s",
        contestants: names.map(contestant).into(),
        aims: names[1..].iter().copied().map(aim).collect(),
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let server = TestPostgres::start().await.context("no PostgreSQL")?;
    let url = server.database().await?;
    let connections = spec.contestant.split('-').next().unwrap_or_default();
    let settings = PostgresSettings::new(STOCK).with_connections(connections.parse()?);
    let instances = 1 + usize::from(spec.contestant.ends_with("-of-two"));
    let first: Arc<OnceLock<UsageReading>> = Arc::default();
    let (group, stop) = (unique("bench-shared-rows"), CancellationToken::new());
    let mut members = Vec::new();
    for _ in 0..instances {
        let inbox = PostgresInbox::open_with(&url, &settings).await?;
        let mut consumer = ConsumerSettings::new(group.clone(), [spec.topic.clone()]);
        consumer.concurrency = CONCURRENCY;
        let consumer = Consumer::new(spec.kafka()?, consumer, router(&first, inbox))?;
        members.push((consumer, stop.clone()));
    }
    let pool = PgPool::connect(&url).await?;
    let fill = sqlx::query(FILL).bind(i64::from(ROWS) - 1);
    fill.execute(&pool).await?;
    let members = members
        .into_iter()
        .map(|(consumer, stop)| tokio::spawn(consumer.run(stop)));
    let members: Vec<_> = members.collect();
    let last = wait_for_effects(spec.data.records, || taken(&pool)).await?;
    stop.cancel();
    for member in members {
        member.await??;
    }
    let first = first.get().context("no event came")?;
    rate(spec.data.records, last.since(first)?)
}

/// A router whose handler adds one to the row of an event.
fn router(first: &Arc<OnceLock<UsageReading>>, inbox: PostgresInbox) -> Router {
    let first = Arc::clone(first);
    let take = move |event: Event<OrderEvent>, mut tx: PostgresTx| {
        first.get_or_init(UsageReading::now);
        async move {
            let take = sqlx::query(TAKE).bind(i64::from(event.data.key % ROWS));
            take.execute(&mut *tx).await?;
            Ok::<_, HandlerError>(())
        }
    };
    Router::new().on(take).with_inbox(inbox)
}

/// The number of effects so far.
async fn taken(pool: &PgPool) -> anyhow::Result<u64> {
    let taken: i64 = sqlx::query_scalar(TAKEN).fetch_one(pool).await?;
    Ok(taken.unsigned_abs())
}
