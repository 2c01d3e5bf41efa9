//! The board's answers in Redis, shared by its instances: any instance can answer for all, even
//! without access to the store.
//!
//! Owns the cache's format. An order is a hash of its facts, and a fact never changes. Writers only
//! add facts, so the order of their writes does not matter.
//!
//! A connection to a server that became a replica does not break: it is replaced when the server
//! refuses a request as a replica, because the address may lead to the new primary by then.

use super::queries::{Line, Order, Told};
use super::{Fact, State};
use anyhow::{Context, Result};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncTypedCommands, Client, RedisError, RedisResult};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Prefix of every key.
const PREFIX: &str = "shop:orderboard:";

/// How long an order is cached after its last write. Later the store answers.
const KEPT: Duration = Duration::from_hours(30 * 24);

/// Time limit of a request. A slower cache is useless.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The age at which a connection may be replaced: requests that a replica refuses together replace
/// it once.
const REPLACE_AFTER: Duration = Duration::from_secs(1);

/// Number of orders per read.
const BATCH: usize = 500;

/// A Redis with the board's orders. Clones share one connection.
#[derive(Clone)]
pub struct Cache {
    client: Client,
    current: Arc<Mutex<Current>>,
}

/// The connection that requests use.
struct Current {
    /// Reopens itself if it breaks. A clone is a handle on the same connection.
    connection: ConnectionManager,
    since: Instant,
}

impl Current {
    /// A connection that the first request opens.
    fn new(client: &Client) -> RedisResult<Self> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT))
            .set_number_of_retries(0);
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(client.clone(), config)?,
            since: Instant::now(),
        })
    }
}

impl Cache {
    /// Creates a cache at `url`. The first request connects.
    ///
    /// # Errors
    /// If the URL is invalid.
    pub fn new(url: &str) -> Result<Self> {
        let client =
            Client::open(url).context("the cache's URL is invalid; write redis://HOST:PORT")?;
        let current = Arc::new(Mutex::new(Current::new(&client)?));
        Ok(Self { client, current })
    }

    fn connection(&self) -> ConnectionManager {
        self.current().connection.clone()
    }

    /// The connection. Never locked over an await.
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a request. If it is the refusal of a replica, later requests use a new
    /// connection, for which the address is resolved again. Running requests keep the old one.
    fn checked<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        if answer.as_ref().is_err_and(is_of_replica) {
            let mut current = self.current();
            if current.since.elapsed() >= REPLACE_AFTER {
                *current = Current::new(&self.client)?;
            }
        }
        answer
    }

    /// One order. `None` if it is not cached.
    ///
    /// # Errors
    /// If Redis does not answer in time, or contains other data.
    pub async fn order(&self, order_id: &str) -> Result<Option<Order>> {
        let kept = self.connection().hgetall(key(order_id)).await;
        let kept = self.checked(kept)?;
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
        let mut connection = self.connection();
        let ids = self.checked(connection.smembers(index()).await)?;
        let mut ids: Vec<String> = ids.into_iter().collect();
        ids.sort_unstable();
        let mut lines = Vec::new();
        for ids in ids.chunks(BATCH) {
            let mut asked = redis::pipe();
            for id in ids {
                asked.hkeys(key(id));
            }
            let facts = asked.query_async(&mut connection).await;
            let facts: Vec<Vec<String>> = self.checked(facts)?;
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
        let answer = written.query_async(&mut self.connection()).await;
        let () = self.checked(answer)?;
        Ok(())
    }
}

/// Whether the server refused because it is a replica.
fn is_of_replica(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::testing::{TestRedis, eventually, required};

    const WITHIN: Duration = Duration::from_secs(20);

    async fn send<T: redis::FromRedisValue>(cache: &Cache, words: &[&str]) -> RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut cache.connection()).await
    }

    fn order() -> Order {
        let told = Told {
            fact: "placed".to_owned(),
            at: "2026-01-01T00:00:00Z".to_owned(),
            detail: "customer c-1, 100 cents".to_owned(),
        };
        Order {
            order_id: "o-1".to_owned(),
            state: "placed".to_owned(),
            facts: vec![told],
        }
    }

    /// It is kept open, and would lead to the replica for ever.
    #[tokio::test]
    async fn a_connection_to_a_replica_is_replaced() {
        let Some(redis) = required(TestRedis::start().await) else {
            return;
        };
        let cache = Cache::new(redis.url()).expect("a valid URL");
        let orders = [order()];
        let accepted = || async { cache.add(&orders).await.ok() };
        let client_id = || async { send::<i64>(&cache, &["CLIENT", "ID"]).await.ok() };
        eventually("it is the primary", WITHIN, accepted).await;
        let first = eventually("an id", WITHIN, client_id).await;
        let () = send(&cache, &["REPLICAOF", "127.0.0.1", "1"])
            .await
            .expect("Redis answers");
        let replaced = || async {
            cache.add(&orders).await.expect_err("it is a replica");
            client_id().await.filter(|id| *id != first)
        };
        eventually("another connection", WITHIN, replaced).await;
        let () = send(&cache, &["REPLICAOF", "NO", "ONE"])
            .await
            .expect("Redis answers");
        eventually("it is the primary again", WITHIN, accepted).await;
        let kept = cache.order("o-1").await.expect("Redis answers");
        assert_eq!(kept, Some(order()));
    }
}
