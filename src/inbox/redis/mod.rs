//! An inbox in Redis: claims are leases, shared by instances on any number of machines.
//!
//! Owns how a claim is made and waited for. It has no transaction to hand out: an effect is made elsewhere, beside the claim.

mod claim;
mod connection;
mod error;
mod scripts;
mod settings;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

pub use settings::RedisSettings;

use super::{BoxFuture, Claimed, Inbox, InboxError, InboxKey};
use claim::{Lease, RedisClaim, Unheard};
use connection::Store;
use redis::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest and the longest pause between two looks at a delivery that another owner has.
const LOOKS: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// An inbox in Redis, by leases. Cheap to clone; clones share one connection.
///
/// A delivery is *in progress*, by one owner until its lease runs out, and then *completed*, with its replies, until the
/// retention runs out. The owner renews its lease while its handler runs; when it crashes, another takes the delivery over
/// after the lease. Every change compares the owner's token first, so that who lost its lease cannot complete: its completion
/// fails with [`InboxError::Lost`], the record is tried again, and is then found completed by the other owner, waited for, or
/// handled again if the other owner failed.
///
/// # What it does not promise
/// **Effects are at least once.** They are made outside of Redis, so that no commit covers both. An effect is made a second
/// time when the process ends between effect and completion; when the completion does not reach Redis; when a process stands
/// still for longer than its lease, or cannot reach Redis for so long, while another takes the delivery over; and when Redis
/// forgets. It forgets at a failover, as replication is asynchronous; at a crash of its machine, with the last second's
/// completions, unless `appendfsync` is `always`; at a restart, everything, unless `appendonly` is `yes`; and when it evicts
/// keys, unless `maxmemory-policy` is `noeviction`. Handlers whose effects must be exactly once write them through a store
/// with transactions, such as [`SqliteInbox`](super::SqliteInbox), or `PostgresInbox`, which machines share as well.
///
/// # What it needs
/// Redis 2.6 or later, or a server that speaks as it does; a single primary, no Redis Cluster; no TLS of its own. A completed
/// delivery takes about 200 bytes and its replies for as long as it is remembered.
#[derive(Clone)]
pub struct RedisInbox {
    store: Arc<Store>,
}

impl RedisInbox {
    /// Opens the store at `url` (`redis://user:password@host:port/database`) with the default settings.
    ///
    /// # Errors
    /// See [`RedisInbox::open_with`].
    pub async fn open(url: &str) -> Result<Self, InboxError> {
        Self::open_with(url, &RedisSettings::default()).await
    }

    /// Opens the store at `url` as `settings` say.
    ///
    /// # Errors
    /// [`InboxError::Setting`] when the URL or a setting cannot be used; [`InboxError::Unavailable`] when Redis does not answer;
    /// [`InboxError::NotWritable`] when it refuses.
    pub async fn open_with(url: &str, settings: &RedisSettings) -> Result<Self, InboxError> {
        let store = Arc::new(Store::connect(url, &settings.clone().bounded()).await?);
        Ok(Self { store })
    }

    /// Asks once for the delivery: the claim's answer, or how long the other owner's lease still has.
    async fn try_claim(
        key: &InboxKey,
        lease: &Lease,
    ) -> Result<Result<Claimed, Duration>, InboxError> {
        match lease.take().await? {
            Value::Nil => Ok(Ok(Claimed::Fresh(Box::new(RedisClaim::new(lease.clone()))))),
            Value::BulkString(value) => Ok(Ok(Claimed::Duplicate {
                unsent: scripts::read(key, &value)?,
            })),
            // A key without a time to live is none of ours, and is waited for as any other.
            Value::Int(-1) => Ok(Err(Duration::MAX)),
            Value::Int(left_ms) => Ok(Err(Duration::from_millis(
                u64::try_from(left_ms).unwrap_or(0),
            ))),
            other => Err(InboxError::Other(
                format!(
                    "Redis answered a claim with {other:?}; is there something else under {}?",
                    lease.key
                )
                .into(),
            )),
        }
    }
}

impl Inbox for RedisInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(async move {
            let settings = &self.store.settings;
            let lease = Lease {
                store: self.store.clone(),
                key: scripts::redis_key(&settings.prefix, key).into(),
                content: key.content,
                token: scripts::token().into(),
            };
            let mut asked = Unheard::new(&lease);
            let begun = Instant::now();
            let mut pause = LOOKS.0;
            loop {
                match Self::try_claim(key, &lease).await? {
                    Ok(claimed) => {
                        asked.heard();
                        return Ok(claimed);
                    }
                    Err(_) if begun.elapsed() >= settings.wait => {
                        asked.heard();
                        return Err(error::held(&self.store.address, settings.wait));
                    }
                    Err(left) => tokio::time::sleep(jittered(pause).min(left)).await,
                }
                pause = (2 * pause).min(LOOKS.1);
            }
        })
    }

    /// Redis forgets by itself: what is older than the retention is gone, if it was ever there.
    fn forgotten_before_ms(&self) -> Option<i64> {
        let retention_ms = i64::try_from(self.store.settings.retention.as_millis()).ok()?;
        jiff::Timestamp::now()
            .as_millisecond()
            .checked_sub(retention_ms)
    }
}

/// Between half of a pause and all of it, so that those who wait for one delivery do not all come at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}
