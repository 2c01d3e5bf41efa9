//! `outbox-publish`: 16 clients, each with one transaction at a time in PostgreSQL, which publishes
//! one event and commits. A commit takes 20 ms.
//!
//! `plain` inserts a row into a table by hand and notifies nobody. `notify-in-transaction` adds the
//! `NOTIFY` with which many outboxes wake their relay. `evenkeel` publishes through the outbox, and
//! its relay runs in the same process, as does the thread that reads the topic; the processor time
//! includes both. Clients have keys of their own, so none waits for the lock of a key.
//!
//! # What makes a commit slow
//! A transaction with a `NOTIFY` takes a lock of the whole server before its commit record is
//! written, and releases it once that record is on disk. The question is what other clients wait
//! for meanwhile, so the delay must lie within the commit, while its locks are held. The server's
//! `commit_delay` is such a delay: it precedes the write to the disk, and commits that come
//! meanwhile share that write. It models a slow disk, or a replica that is waited for.
//!
//! `commit_siblings` must be 0: the delay applies only while so many other transactions are active,
//! and those that wait for a lock do not count as active. With its default of 5 a lone commit has
//! no delay, and no transaction of `notify-in-transaction`, since all others wait for the lock.
//!
//! A proxy that holds back the server's answers models a distant server instead: the server has
//! released the locks before the client's wait begins, so it shows nothing of this, and it delays
//! each statement, too.

use super::delays::Delays;
use super::events::{SOURCE, check_topic, event, record};
use crate::measure::run::{quantile, rate};
use crate::measure::usage::{Usage, UsageReading};
use crate::order_event::OrderEvent;
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::event::{Event, EventType};
use evenkeel::outbox::{PostgresOutbox, Relay};
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel::testing::TestPostgres;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection, PgPool};
use std::sync::Arc;
use std::time::Instant;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The events, unless the user chooses other sizes.
pub(crate) const DATA: Data = Data {
    records: 8_000,
    keys: 800,
    form: Form::Event,
    ..crate::workloads::throughput::consume::DATA
};

const CLIENTS: usize = 16;

/// `notify-in-transaction` commits this share of the events, because it is that much slower.
const NOTIFY_SHARE: u64 = 10;

/// Applies to each session that begins later. The delay is in microseconds.
const SLOW_COMMITS: [&str; 2] = [
    "ALTER ROLE CURRENT_USER SET commit_delay = 20000",
    "ALTER ROLE CURRENT_USER SET commit_siblings = 0",
];

const PLAIN_TABLE: &str = "
    CREATE TABLE plain_outbox (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        id text NOT NULL,
        topic text NOT NULL,
        key text NOT NULL,
        type text NOT NULL,
        payload bytea NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now()
    )";
const INSERT: &str =
    "INSERT INTO plain_outbox (id, topic, key, type, payload) VALUES ($1, $2, $3, $4, $5)";
const NOTIFY: &str = "SELECT pg_notify('plain_outbox', '')";
const COUNT: &str = "SELECT count(*) FROM plain_outbox";

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let aim = |figure, bound| Aim::new("evenkeel", figure, bound);
    Plan {
        title: format!("{CLIENTS} clients publish in PostgreSQL, a commit takes 20 ms"),
        unit: "commits/s",
        contestants: ["plain", "notify-in-transaction", "evenkeel"]
            .map(contestant)
            .into(),
        aims: vec![
            aim(Figure::Value, Bound::AtLeast(650.0)),
            aim(Figure::RatioTo("plain"), Bound::AtLeast(0.9)),
            aim(Figure::Detail("delay_p50_ms"), Bound::AtMost(20.0)),
        ],
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let server = TestPostgres::start().await.context("no PostgreSQL")?;
    let url = server.database().await?;
    slow_down_commits(&url).await?;
    let pool = PgPoolOptions::new().max_connections(CLIENTS as u32);
    let pool = pool.connect(&url).await?;
    match spec.contestant.as_str() {
        "plain" => by_hand(spec, pool, Outbox::Plain).await,
        "notify-in-transaction" => by_hand(spec, pool, Outbox::NotifyInTransaction).await,
        _ => Box::pin(evenkeel(spec, pool, &url)).await,
    }
}

/// Makes the commits of later sessions slow.
async fn slow_down_commits(url: &str) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    for setting in SLOW_COMMITS {
        sqlx::query(setting).execute(&mut connection).await?;
    }
    Ok(connection.close().await?)
}

async fn by_hand(spec: &Spec, pool: PgPool, outbox: Outbox) -> anyhow::Result<Turn> {
    sqlx::query(PLAIN_TABLE).execute(&pool).await?;
    let load = Arc::new(Load::new(spec, pool, outbox));
    let turn = load.run().await?;
    let rows: i64 = sqlx::query_scalar(COUNT).fetch_one(&load.pool).await?;
    if rows.unsigned_abs() != load.events() {
        bail!("wrong answer: {rows} rows of {} events", load.events());
    }
    Ok(turn)
}

async fn evenkeel(spec: &Spec, pool: PgPool, url: &str) -> anyhow::Result<Turn> {
    let outbox = PostgresOutbox::open(url).await?;
    let publisher = Publisher::new(&spec.kafka()?, PublisherSettings::new(SOURCE))?;
    let relay = Relay::new(outbox.clone(), publisher);
    let load = Arc::new(Load::new(spec, pool, Outbox::Evenkeel(outbox)));
    if load.places < 2 {
        bail!("the first event of each key does not count, and there is no second one");
    }
    let stop = CancellationToken::new();
    let relay = tokio::spawn(relay.run(stop.clone()));
    let (read_load, read_spec) = (Arc::clone(&load), spec.clone());
    let reading = tokio::task::spawn_blocking(move || read_load.delays.read(&read_spec));
    let mut turn = load.run().await?;
    reading.await??;
    stop.cancel();
    let report = relay.await??;
    if report.published != load.events() || report.failed > 0 || report.unacknowledged > 0 {
        bail!("wrong answer: {report:?}");
    }
    check_topic(spec).await?;
    let mut delays = load.delays.counted_ms();
    for (name, share) in [("delay_p50_ms", 0.5), ("delay_p99_ms", 0.99)] {
        let delay = quantile(&mut delays, share);
        turn.details.insert(name.to_owned(), delay);
    }
    Ok(turn)
}

/// How a transaction publishes.
enum Outbox {
    Plain,
    NotifyInTransaction,
    Evenkeel(PostgresOutbox),
}

impl Outbox {
    /// Publishes an event in the transaction of `connection`.
    async fn publish(
        &self,
        connection: &mut PgConnection,
        event: &Event<OrderEvent>,
        topic: &str,
    ) -> anyhow::Result<()> {
        match self {
            Self::Plain => insert(connection, event, topic).await?,
            Self::NotifyInTransaction => {
                insert(connection, event, topic).await?;
                sqlx::query(NOTIFY).execute(connection).await?;
            }
            Self::Evenkeel(outbox) => {
                let record = record(event, topic)?;
                outbox.publish_records(connection, &[record]).await?;
            }
        }
        Ok(())
    }

    /// Called after a commit.
    fn wake(&self) {
        if let Self::Evenkeel(outbox) = self {
            outbox.wake();
        }
    }
}

/// Inserts an event into the plain table.
async fn insert(
    connection: &mut PgConnection,
    event: &Event<OrderEvent>,
    topic: &str,
) -> anyhow::Result<()> {
    let insert = sqlx::query(INSERT)
        .bind(&event.attributes.id)
        .bind(topic)
        .bind(event.data.key())
        .bind(OrderEvent::TYPE)
        .bind(serde_json::to_vec(&event.data)?);
    insert.execute(connection).await?;
    Ok(())
}

/// What all clients do together.
struct Load {
    outbox: Outbox,
    pool: PgPool,
    topic: String,
    data: Data,
    /// The number of events of each key.
    places: u64,
    delays: Delays,
}

impl Load {
    fn new(spec: &Spec, pool: PgPool, outbox: Outbox) -> Self {
        let places = spec.data.records / spec.data.keys as u64;
        let places = match outbox {
            Outbox::NotifyInTransaction => (places / NOTIFY_SHARE).max(1),
            Outbox::Plain | Outbox::Evenkeel(_) => places,
        };
        Self {
            outbox,
            pool,
            topic: spec.topic.clone(),
            data: spec.data,
            places,
            delays: Delays::new(spec.data.keys, places),
        }
    }

    /// The number of all events.
    fn events(&self) -> u64 {
        self.data.keys as u64 * self.places
    }

    /// Runs all clients: the commits per second, and the median of a commit's duration.
    async fn run(self: &Arc<Self>) -> anyhow::Result<Turn> {
        let (spent, mut commits_ms) = self.run_clients().await?;
        let mut turn = rate(self.events(), spent)?;
        let median = quantile(&mut commits_ms, 0.5);
        turn.details.insert("commit_p50_ms".to_owned(), median);
        Ok(turn)
    }

    /// Runs all clients. Returns the duration of each commit in milliseconds, too.
    async fn run_clients(self: &Arc<Self>) -> anyhow::Result<(Usage, Vec<f64>)> {
        let begun = UsageReading::now();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(Arc::clone(self).run_client(client));
        }
        let mut commits_ms = Vec::new();
        while let Some(client) = clients.join_next().await {
            commits_ms.extend(client??);
        }
        Ok((UsageReading::now().since(&begun)?, commits_ms))
    }

    /// Publishes the events of a client, one transaction after the other. Returns the duration of
    /// each commit in milliseconds.
    async fn run_client(self: Arc<Self>, client: usize) -> anyhow::Result<Vec<f64>> {
        let mut commits_ms = Vec::new();
        for (key, place) in events_of(client, self.data.keys, self.places) {
            let event = event(key, place, self.data.size);
            let mut transaction = self.pool.begin().await?;
            self.outbox
                .publish(&mut transaction, &event, &self.topic)
                .await?;
            let begun = Instant::now();
            transaction.commit().await?;
            commits_ms.push(begun.elapsed().as_secs_f64() * 1e3);
            self.delays.set_committed(key, place);
            self.outbox.wake();
        }
        Ok(commits_ms)
    }
}

/// The events of a client in their order, as key and position.
fn events_of(client: usize, keys: usize, places: u64) -> impl Iterator<Item = (usize, u64)> {
    let keys_of_client = (client..keys).step_by(CLIENTS);
    (0..places).flat_map(move |place| keys_of_client.clone().map(move |key| (key, place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::result_check::ResultCheck;
    use evenkeel::testing::required;
    use std::time::Duration;

    #[test]
    fn clients_share_the_keys_and_keep_their_order() {
        let check = ResultCheck::of(&Data {
            records: 120,
            keys: 40,
            ..DATA
        });
        // One client after the other: a key of two clients would be out of order.
        for (key, place) in (0..CLIENTS).flat_map(|client| events_of(client, 40, 3)) {
            check.check_position(key as u64, place);
        }
        check.finish().expect("each event once and in order");
    }

    #[tokio::test]
    async fn a_commit_without_others_takes_20_ms() {
        let Some(server) = required(TestPostgres::start().await) else {
            return;
        };
        let url = server.database().await.expect("a database");
        slow_down_commits(&url).await.expect("it is set");
        let connection = PgConnection::connect(&url).await;
        let mut connection = connection.expect("it connects");
        let begun = Instant::now();
        let create = sqlx::query(PLAIN_TABLE).execute(&mut connection).await;
        create.expect("it commits");
        assert!(begun.elapsed() >= Duration::from_millis(20));
    }
}
