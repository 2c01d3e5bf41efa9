//! The board's answers in Redis, shared by its instances: any instance can answer for all, even
//! without access to the store.
//!
//! Owns the cache's format. An order is a hash of its facts, and a fact never changes. Writers only
//! add facts, so the order of their writes does not matter.

use super::queries::{Line, Order, Told};
use super::{Fact, State};
use anyhow::{Context, Result};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncTypedCommands, Client};
use std::time::Duration;

/// Prefix of every key.
const PREFIX: &str = "shop:orderboard:";

/// How long an order is cached after its last write. Later the store answers.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Time limit of a request. A slower cache is useless.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Number of orders per read.
const BATCH: usize = 500;

/// A Redis with the board's orders. Clones share one connection.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
}

impl Cache {
    /// Creates a cache at `url`. The first request connects.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn new(url: &str) -> Result<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(0);
        let client =
            Client::open(url).context("the cache's URL is invalid; write redis://HOST:PORT")?;
        let connection = ConnectionManager::new_lazy_with_config(client, config)?;
        Ok(Self { connection })
    }

    /// One order. `None` if it is not cached.
    ///
    /// # Errors
    /// If Redis does not answer in time, or contains other data.
    pub async fn order(&self, order_id: &str) -> Result<Option<Order>> {
        let kept = self.connection.clone().hgetall(key(order_id)).await?;
        if kept.is_empty() {
            return Ok(None);
        }
        let state = state(kept.keys())?;
        let told = |(fact, told): (String, String)| {
            let (at, detail) = told.split_once(' ').context("a fact has its time")?;
            let (at, detail) = (at.to_owned(), detail.to_owned());
            Ok(Told { fact, at, detail })
        };
        let mut facts: Vec<Told> = kept.into_iter().map(told).collect::<Result<_>>()?;
        facts.sort_by(|a, b| (&a.at, &a.fact).cmp(&(&b.at, &b.fact)));
        Ok(Some(Order {
            order_id: order_id.to_owned(),
            state: state.as_str().to_owned(),
            facts,
        }))
    }

    /// All cached orders, or those in one state, by order id. Redis may have evicted some.
    ///
    /// # Errors
    /// As for [`Cache::order`].
    pub async fn orders(&self, wanted: Option<State>) -> Result<Vec<Line>> {
        let mut connection = self.connection.clone();
        let mut ids: Vec<String> = connection.smembers(index()).await?.into_iter().collect();
        ids.sort_unstable();
        let mut lines = Vec::new();
        for ids in ids.chunks(BATCH) {
            let mut asked = redis::pipe();
            for id in ids {
                asked.hkeys(key(id));
            }
            let facts: Vec<Vec<String>> = asked.query_async(&mut connection).await?;
            for (order_id, facts) in ids.iter().zip(facts).filter(|(_, facts)| !facts.is_empty()) {
                let state = state(facts.iter())?;
                if wanted.is_none_or(|wanted| wanted == state) {
                    let (order_id, state) = (order_id.clone(), state.as_str().to_owned());
                    lines.push(Line { order_id, state });
                }
            }
        }
        Ok(lines)
    }

    /// Adds the facts of these orders.
    ///
    /// # Errors
    /// If Redis does not accept them in time.
    pub async fn add(&self, orders: &[Order]) -> Result<()> {
        if orders.is_empty() {
            return Ok(());
        }
        let mut written = redis::pipe();
        for order in orders {
            let facts = order.facts.iter();
            let facts: Vec<(&str, String)> = facts
                .map(|told| (told.fact.as_str(), format!("{} {}", told.at, told.detail)))
                .collect();
            written.hset_multiple(key(&order.order_id), &facts).ignore();
            written
                .pexpire(key(&order.order_id), i64::try_from(KEPT.as_millis())?)
                .ignore();
            written.sadd(index(), &order.order_id).ignore();
        }
        let () = written.query_async(&mut self.connection.clone()).await?;
        Ok(())
    }
}

/// Key of the hash of an order.
fn key(order_id: &str) -> String {
    format!("{PREFIX}order:{order_id}")
}

/// Key of the set of all order ids.
fn index() -> String {
    format!("{PREFIX}orders")
}

fn state<'a>(facts: impl Iterator<Item = &'a String>) -> Result<State> {
    let facts: Vec<Fact> = facts
        .map(|fact| fact.parse().map_err(anyhow::Error::msg))
        .collect::<Result<_>>()?;
    Ok(State::of(&facts))
}
