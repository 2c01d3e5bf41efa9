//! The store: its connection and its claims.
//!
//! Owns how a claim waits for another owner: it asks again after a pause that grows from 5 ms to
//! 250 ms, with jitter, and never sleeps past the end of the other's lease. Redis has no queue of
//! waiters, so several waiting owners have no order.

use super::claim::{Lease, RedisClaim, UnansweredClaim};
use super::connection::Store;
use super::settings::RedisSettings;
use super::{error, scripts};
use crate::inbox::shared::sent_replies::{self, ForgetReplies, Sent};
use crate::inbox::{BoxFuture, Claimed, Inbox, InboxError, InboxKey};
use redis::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest and the longest pause between two reads of a delivery that another owner holds.
const POLL_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// An inbox in Redis, by leases. Cheap to clone; clones share one connection.
///
/// A delivery is *in progress* with one owner until its lease expires, and then *completed*, with
/// its replies, until the retention expires. The owner renews its lease while its handler runs; if
/// it crashes, another owner takes the delivery after the lease. Every change compares the owner's
/// token first, so an owner that lost its lease cannot complete: its completion fails with
/// [`InboxError::Lost`], and the record is retried. The retry finds the delivery completed by the
/// other owner, waits for that owner, or handles it again if the other owner failed.
///
/// # Limits
/// **Effects are at least once.** They are made outside of Redis, so no commit covers both. An
/// effect is made a second time if the process ends between effect and completion; if the
/// completion does not reach Redis; if a process is suspended for longer than its lease, or cannot
/// reach Redis for that long, while another takes the delivery; and if Redis forgets. Redis forgets
/// in these cases: at a failover, because replication is asynchronous; at a crash of its machine,
/// the completions of the last second, unless `appendfsync` is `always`; at a restart, everything,
/// unless `appendonly` is `yes`; and when it evicts keys, unless `maxmemory-policy` is
/// `noeviction`. Handlers whose effects must be exactly once write them through a transactional
/// store: [`SqliteInbox`](crate::inbox::SqliteInbox), or `PostgresInbox`, which several machines
/// can share.
///
/// # Requirements
/// Redis 2.6 or later, or a compatible server; a single primary, no Redis Cluster. TLS
/// (`rediss://`) needs the feature `tls`, and trusts the certificates of the system, or those in
/// the file named by the environment variable `SSL_CERT_FILE`; client certificates are not
/// supported. A completed delivery takes about 200 bytes for the retention, plus its replies until
/// the brokers have acknowledged them.
///
/// ```no_run
/// use evenkeel::handler::Router;
/// use evenkeel::inbox::RedisInbox;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let inbox = RedisInbox::open("redis://localhost:6379").await?;
/// let router = Router::new().with_inbox(inbox);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RedisInbox {
    store: Arc<Store>,
}

impl std::fmt::Debug for RedisInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisInbox")
            .field("address", &self.store.address)
            .finish_non_exhaustive()
    }
}

impl RedisInbox {
    /// Opens the store at `url` (`redis://user:password@host:port/database`) with the default
    /// settings.
    ///
    /// # Errors
    /// See [`RedisInbox::open_with`].
    pub async fn open(url: &str) -> Result<Self, InboxError> {
        Self::open_with(url, &RedisSettings::default()).await
    }

    /// Opens the store at `url` with these settings.
    ///
    /// # Errors
    /// [`InboxError::Setting`] if the URL or a setting is invalid; [`InboxError::Unavailable`] if
    /// Redis does not answer; [`InboxError::NotWritable`] if it refuses.
    pub async fn open_with(url: &str, settings: &RedisSettings) -> Result<Self, InboxError> {
        let store = Arc::new(Store::connect(url, &settings.clone().bounded()).await?);
        Ok(Self { store })
    }

    /// Tries once to claim the delivery. Returns the claim's answer, or the remaining lease of the
    /// other owner.
    async fn try_claim(
        key: &InboxKey,
        lease: &Lease,
    ) -> Result<Result<Claimed, Duration>, InboxError> {
        match lease.take().await? {
            Value::Nil => Ok(Ok(Claimed::Fresh(Box::new(RedisClaim::new(lease.clone()))))),
            Value::BulkString(value) => Ok(Ok(Claimed::Duplicate {
                unsent: scripts::read(key, &value)?,
            })),
            // A key without a time to live was not written by this store, and is waited for like
            // any other.
            Value::Int(-1) => Ok(Err(Duration::MAX)),
            Value::Int(left_ms) => Ok(Err(Duration::from_millis(
                u64::try_from(left_ms).unwrap_or(0),
            ))),
            other => Err(InboxError::Other(
                format!(
                    "Redis answered a claim with {other:?}; check whether another program writes \
                     {}",
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
            let mut unanswered = UnansweredClaim::new(&lease);
            let begun = Instant::now();
            let mut pause = POLL_PAUSES.0;
            loop {
                match Self::try_claim(key, &lease).await? {
                    Ok(claimed) => {
                        unanswered.answered();
                        return Ok(claimed);
                    }
                    Err(_) if begun.elapsed() >= settings.wait => {
                        unanswered.answered();
                        return Err(error::held(&self.store.address, settings.wait));
                    }
                    Err(left) => tokio::time::sleep(jittered(pause).min(left)).await,
                }
                pause = (2 * pause).min(POLL_PAUSES.1);
            }
        })
    }

    fn sent(&self, key: &InboxKey) {
        sent_replies::forget_soon(Arc::clone(&self.store), key);
    }

    /// Redis forgets by itself: a completion older than the retention is gone.
    fn forgotten_before_ms(&self) -> Option<i64> {
        let retention_ms = i64::try_from(self.store.settings.retention.as_millis()).ok()?;
        jiff::Timestamp::now()
            .as_millisecond()
            .checked_sub(retention_ms)
    }
}

/// Between half of a pause and all of it, so that owners that wait for one delivery do not all
/// return at the same time.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

impl ForgetReplies for Store {
    fn sent(&self) -> &Sent {
        &self.sent
    }

    async fn forget_replies(&self, keys: &[InboxKey]) -> Result<(), InboxError> {
        let lengths = scripts::LENGTHS.map(|length| length.to_string().into_bytes());
        for key in keys {
            let key = scripts::redis_key(&self.settings.prefix, key);
            let arguments = [&lengths[0][..], &lengths[1][..]];
            let script = scripts::FORGET_REPLIES;
            let forgotten = self.run("forget replies", script, &key, &arguments);
            let _: i64 = forgotten.await?;
        }
        Ok(())
    }
}
