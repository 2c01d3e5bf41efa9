//! Updates the shared cache concurrently with the handlers: they neither wait for it nor fail with
//! it.
//!
//! Owns the set of orders whose cached facts are older than the store's. An order is read from the
//! store and written completely after its event was committed. A failed write is retried. A daemon
//! that starts writes all orders.

use super::cache::Cache;
use super::queries;
use crate::daemon::layer::Layer;
use anyhow::Result;
use evenkeel::handler::{Delivery, Outcome, Router};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tower::ServiceExt;

/// Maximum number of orders that wait to be written. Above it, all orders are read again instead.
const WAITING_MAX: usize = 100_000;

/// Number of orders per write.
const BATCH: usize = 200;

/// The pause after a write, in which orders accumulate, and the pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// The orders whose cached facts are older than the store's.
#[derive(Default)]
struct Stale {
    orders: Mutex<Orders>,
    more: Notify,
}

#[derive(Default)]
enum Orders {
    /// Every order of the store.
    #[default]
    All,
    Some(BTreeSet<String>),
}

impl Stale {
    fn lock(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, order_ids: impl IntoIterator<Item = String>) {
        let mut orders = self.lock();
        if let Orders::Some(waiting) = &mut *orders {
            waiting.extend(order_ids);
            if waiting.len() > WAITING_MAX {
                *orders = Orders::All;
            }
        }
        self.more.notify_one();
    }

    /// Takes the waiting orders.
    fn take(&self) -> Orders {
        std::mem::replace(&mut *self.lock(), Orders::Some(BTreeSet::new()))
    }
}

/// A router whose changes are written to the cache.
#[derive(Clone)]
pub(super) struct CacheUpdater {
    router: Router,
    stale: Option<Arc<Stale>>,
}

impl CacheUpdater {
    /// Updates `cache` after each change that `router` makes to `store`, until the runtime ends.
    /// Without a cache, it does nothing.
    pub(super) fn new(router: Router, store: PathBuf, cache: Option<Cache>) -> Self {
        let stale = cache.map(|cache| {
            let stale = Arc::new(Stale::default());
            tokio::spawn(follow(stale.clone(), store, cache));
            stale
        });
        Self { router, stale }
    }
}

impl Layer for CacheUpdater {
    async fn deliver(self, delivery: Delivery) -> Outcome {
        // The key of every shop event about an order is the order's id.
        let order_id = delivery
            .record
            .key()
            .and_then(|key| String::from_utf8(key.to_vec()).ok());
        let Ok(outcome) = self.router.oneshot(delivery).await;
        if let (Some(stale), Outcome::Done) = (&self.stale, &outcome) {
            stale.add(order_id);
        }
        outcome
    }
}

async fn follow(stale: Arc<Stale>, store: PathBuf, cache: Cache) {
    let mut failing = false;
    loop {
        let mut waiting = match stale.take() {
            Orders::Some(orders) => orders,
            Orders::All => match all(&store).await {
                Ok(orders) => orders,
                Err(error) => {
                    tracing::warn!("cannot read the orders for the cache; retrying: {error:#}");
                    *stale.lock() = Orders::All;
                    tokio::time::sleep(PAUSES.1).await;
                    continue;
                }
            },
        };
        while let Some(first) = waiting.pop_first() {
            let rest = std::iter::from_fn(|| waiting.pop_first());
            let batch: Vec<String> = std::iter::once(first).chain(rest.take(BATCH - 1)).collect();
            match write(&store, &cache, &batch).await {
                Ok(()) if failing => tracing::info!("the cache accepts orders again"),
                Ok(()) => {}
                Err(error) => {
                    if !failing {
                        tracing::warn!("cannot write orders to the cache; retrying: {error:#}");
                    }
                    failing = true;
                    waiting.extend(batch);
                    tokio::time::sleep(PAUSES.1).await;
                    continue;
                }
            }
            failing = false;
        }
        stale.more.notified().await;
        tokio::time::sleep(PAUSES.0).await;
    }
}

/// Every order of the store.
async fn all(store: &Path) -> Result<BTreeSet<String>> {
    let mut store = queries::open(store).await?;
    let lines = queries::orders(&mut store, None).await?;
    Ok(lines.into_iter().map(|line| line.order_id).collect())
}

async fn write(store: &Path, cache: &Cache, order_ids: &[String]) -> Result<()> {
    let mut store = queries::open(store).await?;
    let mut orders = Vec::with_capacity(order_ids.len());
    for order_id in order_ids {
        orders.extend(queries::order(&mut store, order_id).await?);
    }
    cache.add(&orders).await
}
