//! The contestants `hand-written` and `hand-written-batch`: what a careful service does without a
//! framework. Loops of a consumer, each with its partitions and a connection of its own, write the
//! claims, the effects and the outbox's rows in one transaction. Offsets are stored after the
//! commit, and committed by the client in the background.
//!
//! A pool would ping a connection whenever it is taken and returned, which a loop that always needs
//! one does not.
//!
//! A failure ends the process, and what was not committed is read again: there are no retries, no
//! dead letters, and no concurrency within a partition.

use super::relay::relay;
use super::tables;
use super::work::{EffectBooked, LANES, Unit, Work, stop_by_signal};
use crate::order_event::OrderEvent;
use crate::spec::Spec;
use crate::workloads::stores::outbox::hand_written::producer;
use anyhow::Context;
use futures_util::FutureExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use sqlx::{Connection, PgConnection};
use std::collections::HashSet;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The most events of a batch: as in evenkeel's batch handlers.
const BATCH_MAX: usize = 500;

const ADD: &str = "INSERT INTO outbox (event_id, record_key, payload) VALUES ($1, $2, $3)";
const CLAIM_ALL: &str = "INSERT INTO handled (event) SELECT unnest($1::text[])
    ON CONFLICT DO NOTHING RETURNING event";
const ADD_ALL: &str = "INSERT INTO outbox (event_id, record_key, payload)
    SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])";

/// Runs until SIGTERM.
pub(super) async fn run(spec: &Spec, work: &Work, unit: Unit) -> anyhow::Result<()> {
    let stop = stop_by_signal()?;
    let config = spec.raw(&[
        ("group.id", work.group.as_str()),
        ("auto.offset.reset", "earliest"),
        ("enable.auto.offset.store", "false"),
        ("fetch.queue.backoff.ms", "10"),
    ]);
    let mut tasks = JoinSet::new();
    for _ in 0..LANES {
        let (config, topic) = (config.clone(), spec.topic.clone());
        let database = PgConnection::connect(&work.database).await?;
        tasks.spawn(consume(config, topic, unit, database, stop.clone()));
    }
    tasks.spawn(relay(producer(spec)?, work.database.clone(), stop));
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Reads and handles events, one unit after the other.
async fn consume(
    config: ClientConfig,
    topic: String,
    unit: Unit,
    mut database: PgConnection,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let consumer: StreamConsumer = config.create()?;
    consumer.subscribe(&[&topic])?;
    while let Some(record) = stop.run_until_cancelled(consumer.recv()).await {
        let mut records = vec![record?];
        while unit == Unit::Batch && records.len() < BATCH_MAX {
            match consumer.recv().now_or_never() {
                Some(record) => records.push(record?),
                None => break,
            }
        }
        let events = records.iter().map(Incoming::of);
        let events: Vec<Incoming> = events.collect::<anyhow::Result<_>>()?;
        let mut transaction = database.begin().await?;
        match unit {
            Unit::Event => {
                for event in &events {
                    event.handle(&mut transaction).await?;
                }
            }
            Unit::Batch => handle_all(&mut transaction, &events).await?,
        }
        transaction.commit().await?;
        for record in &records {
            consumer.store_offset_from_message(record)?;
        }
    }
    Ok(())
}

/// An event that was read.
struct Incoming {
    /// Source and id, which identify it.
    event: String,
    id: String,
    key: String,
    order: OrderEvent,
}

impl Incoming {
    fn of(record: &BorrowedMessage<'_>) -> anyhow::Result<Self> {
        let headers = record.headers().context("an event has headers")?;
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name);
            let value = found.and_then(|header| header.value);
            let value = value.with_context(|| format!("an event has the header {name}"))?;
            anyhow::Ok(std::str::from_utf8(value)?)
        };
        let (source, id) = (header("ce_source")?, header("ce_id")?);
        let key = record.key().context("an order has a key")?;
        let payload = record.payload().context("an order has a payload")?;
        Ok(Self {
            event: format!("{source} {id}"),
            id: id.to_owned(),
            key: std::str::from_utf8(key)?.to_owned(),
            order: serde_json::from_slice(payload)?,
        })
    }

    /// The payload of the event that is published about it.
    fn result(&self) -> serde_json::Result<Vec<u8>> {
        let OrderEvent { key, place, .. } = self.order;
        serde_json::to_vec(&EffectBooked { key, place })
    }

    async fn handle(&self, transaction: &mut PgConnection) -> anyhow::Result<()> {
        if tables::claim_and_insert(transaction, &self.event, &self.order).await? {
            let add = sqlx::query(ADD).bind(&self.id).bind(&self.key);
            add.bind(self.result()?).execute(transaction).await?;
        }
        Ok(())
    }
}

/// Handles the events of a batch in three statements. An event that was handled before, or occurs
/// twice, is left out.
async fn handle_all(transaction: &mut PgConnection, events: &[Incoming]) -> anyhow::Result<()> {
    let claims: Vec<&str> = events.iter().map(|event| event.event.as_str()).collect();
    let claimed = sqlx::query_scalar(CLAIM_ALL).bind(claims);
    let claimed: Vec<String> = claimed.fetch_all(&mut *transaction).await?;
    let mut claimed: HashSet<String> = claimed.into_iter().collect();
    let new: Vec<&Incoming> = events
        .iter()
        .filter(|event| claimed.remove(&event.event))
        .collect();
    let orders: Vec<&OrderEvent> = new.iter().map(|event| &event.order).collect();
    tables::insert_all(transaction, &orders).await?;
    let ids: Vec<&str> = new.iter().map(|event| event.id.as_str()).collect();
    let keys: Vec<&str> = new.iter().map(|event| event.key.as_str()).collect();
    let results = new.iter().map(|event| event.result());
    let results: Vec<Vec<u8>> = results.collect::<serde_json::Result<_>>()?;
    let add = sqlx::query(ADD_ALL).bind(ids).bind(keys).bind(results);
    add.execute(transaction).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::PgPool;

    fn incoming(id: &str, place: u64) -> Incoming {
        Incoming {
            event: format!("/bench {id}"),
            id: id.to_owned(),
            key: "k0".to_owned(),
            order: OrderEvent::new(0, place, 300),
        }
    }

    #[tokio::test]
    async fn an_event_that_comes_again_has_one_effect_and_one_result() {
        let Some(server) = ::evenkeel::testing::postgres().await else {
            return;
        };
        let url = server.database().await.expect("a database is created");
        let pool = PgPool::connect(&url).await.expect("it accepts connections");
        tables::create(&pool).await.expect("the tables are new");
        let mut connection = pool.acquire().await.expect("a connection");
        let batch = [incoming("a", 0), incoming("b", 1), incoming("a", 0)];
        for _ in 0..2 {
            handle_all(&mut connection, &batch).await.expect("handled");
            for event in &batch {
                event.handle(&mut connection).await.expect("handled");
            }
        }
        tables::check(&pool, 1, 2)
            .await
            .expect("each has its effect once");
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox")
            .fetch_one(&pool)
            .await
            .expect("it is counted");
        assert_eq!(rows, 2);
    }
}
