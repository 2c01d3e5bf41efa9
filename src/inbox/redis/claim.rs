//! A claimed delivery: its lease, renewed while the handler runs, and the ways it ends.
//!
//! Owns the task that renews the lease. A claim ends once: completed, released, or dropped.
//!
//! A renewal runs every third of the lease; if it fails, it is tried again every twelfth. An end of
//! the claim waits for the renewing task to stop first: a renewal that arrives after a release
//! would take the delivery again, without an owner.

use super::connection::Store;
use super::scripts;
use crate::event::{ContentDigest, OutgoingRecord};
use crate::inbox::shared::replies;
use crate::inbox::{BoxFuture, Claim, InboxError};
use redis::{FromRedisValue, Value};
use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Renewals of a lease before it would expire.
const RENEWALS_PER_LEASE: u32 = 3;

/// Minimum number of tries of a failed renewal before the lease expires.
const TRIES_PER_LEASE: u32 = 12;

/// The first pause between two tries to release a claim.
const RELEASE_RETRY: Duration = Duration::from_millis(100);

/// A claim of one delivery, by one owner.
pub(super) struct RedisClaim {
    /// Present until the claim ends.
    held: Option<(Lease, Renewal)>,
}

/// The task that renews a lease; it ends when this is dropped.
struct Renewal(AbortOnDropHandle<()>);

impl Renewal {
    /// Ends the task and waits for its end: a renewal sent after the release would take the
    /// delivery again.
    async fn end(self) {
        self.0.abort();
        // The task was cancelled on purpose.
        let _ = self.0.await;
    }
}

/// The lease of a delivery by one owner.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) store: Arc<Store>,
    /// The key in Redis.
    pub(super) key: Arc<str>,
    /// The digest of the event's content.
    pub(super) content: Option<ContentDigest>,
    /// The owner: random, so that no two claims share it, not even of one process.
    pub(super) token: Arc<[u8]>,
}

impl RedisClaim {
    /// Starts to renew a lease that was just taken. Must be called in a runtime.
    pub(super) fn new(lease: Lease) -> Self {
        let renewal = tokio::spawn(lease.clone().renew_for_ever());
        Self {
            held: Some((lease, Renewal(AbortOnDropHandle::new(renewal)))),
        }
    }
}

impl Lease {
    /// Renews until the task ends with the claim, or until another owner has the delivery.
    async fn renew_for_ever(self) {
        let lease = self.store.settings.lease;
        loop {
            tokio::time::sleep(lease / RENEWALS_PER_LEASE).await;
            loop {
                match self.renew().await {
                    Ok(true) => break,
                    Ok(false) => {
                        tracing::warn!(
                            key = &*self.key,
                            "lease expired while the handler was running, and another instance \
                             has the delivery; its completion will be refused"
                        );
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(
                            key = &*self.key,
                            %error,
                            "failed to renew a lease; retrying"
                        );
                        tokio::time::sleep(lease / TRIES_PER_LEASE).await;
                    }
                }
            }
        }
    }

    /// Takes the delivery if nobody has it. Returns the claim's answer.
    pub(super) async fn take(&self) -> Result<Value, InboxError> {
        let lease = milliseconds(self.store.settings.lease);
        self.run("claim", scripts::CLAIM, &[&lease]).await
    }

    /// Extends the lease. Returns whether this owner still has the delivery.
    async fn renew(&self) -> Result<bool, InboxError> {
        let lease = milliseconds(self.store.settings.lease);
        self.run("renew", scripts::RENEW, &[&lease]).await
    }

    /// Stores the delivery as completed; false if another owner has it.
    async fn complete(&self, replies: &[u8]) -> Result<bool, InboxError> {
        let (value, retention) = (
            scripts::completed_value(self.content, replies),
            milliseconds(self.store.settings.retention),
        );
        self.run("complete", scripts::COMPLETE, &[&value, &retention])
            .await
    }

    /// Releases the delivery; false if this owner did not have it.
    async fn release(&self) -> Result<bool, InboxError> {
        self.run("abandon", scripts::RELEASE, &[]).await
    }

    /// Runs a script with this owner's token as its first argument.
    async fn run<T: FromRedisValue>(
        &self,
        doing: &'static str,
        script: &'static str,
        arguments: &[&[u8]],
    ) -> Result<T, InboxError> {
        let arguments: Vec<&[u8]> = [&*self.token]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.store.run(doing, script, &self.key, &arguments).await
    }

    /// Releases the delivery in a background task, when `before` has ended. Retries for as long as
    /// the lease would last. Without a runtime the lease expires instead.
    pub(super) fn release_soon(self, before: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            before.await;
            let until = Instant::now() + self.store.settings.lease;
            let mut pause = RELEASE_RETRY;
            while self.release().await.is_err() && Instant::now() < until {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        });
    }
}

impl Drop for RedisClaim {
    fn drop(&mut self) {
        if let Some((lease, renewal)) = self.held.take() {
            lease.release_soon(renewal.end());
        }
    }
}

impl Claim for RedisClaim {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(
        mut self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        Box::pin(async move {
            let Some((lease, renewal)) = self.held.take() else {
                return Ok(published);
            };
            renewal.end().await;
            let mut unanswered = UnansweredClaim::new(&lease);
            let completed = lease.complete(&replies::encode(&published)).await?;
            unanswered.answered();
            match completed {
                true => Ok(published),
                false => Err(InboxError::Lost {
                    reason: "its lease expired while the handler was running, and another \
                             instance took the delivery: the effect may exist twice; find out why \
                             this process did not renew the lease, or set a longer one"
                        .to_owned(),
                }),
            }
        })
    }

    fn abandon(mut self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(async move {
            let Some((lease, renewal)) = self.held.take() else {
                return Ok(());
            };
            renewal.end().await;
            let mut unanswered = UnansweredClaim::new(&lease);
            lease.release().await?;
            unanswered.answered();
            Ok(())
        })
    }
}

/// A request about a delivery whose answer has not arrived yet. Dropping it releases the delivery,
/// because it is not known whether this owner has it. A completed delivery stays completed.
pub(super) struct UnansweredClaim(Option<Lease>);

impl UnansweredClaim {
    pub(super) fn new(lease: &Lease) -> Self {
        Self(Some(lease.clone()))
    }

    /// The answer arrived.
    pub(super) fn answered(&mut self) {
        self.0 = None;
    }
}

impl Drop for UnansweredClaim {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.release_soon(std::future::ready(()));
        }
    }
}

/// A time in Redis's format.
fn milliseconds(time: Duration) -> Vec<u8> {
    time.as_millis().max(1).to_string().into_bytes()
}
