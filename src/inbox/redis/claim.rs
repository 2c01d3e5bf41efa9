//! A claimed delivery: its lease, renewed while it is handled, and how it ends.
//!
//! Owns the task that renews. A claim ends once: completed, given back, or dropped.

use super::{Store, scripts};
use crate::event::{ContentDigest, OutgoingRecord};
use crate::inbox::{BoxFuture, Claim, InboxError, replies};
use redis::{FromRedisValue, Value};
use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A lease is renewed this many times before it would run out.
const RENEWALS_PER_LEASE: u32 = 3;

/// A renewal that failed is tried again this many times before the lease runs out, at least.
const TRIES_PER_LEASE: u32 = 12;

/// The first pause between two tries to give a claim back.
const RELEASE_RETRY: Duration = Duration::from_millis(100);

/// A claim of one delivery, by one owner.
pub(super) struct RedisClaim {
    /// Present until the claim ends.
    held: Option<(Lease, Renewal)>,
}

/// The task that renews a lease; it ends when this is dropped.
struct Renewal(AbortOnDropHandle<()>);

impl Renewal {
    /// Ends the task, and returns when it has ended: a renewal that went out after the delivery was given back would take it
    /// again.
    async fn end(self) {
        self.0.abort();
        // That it was ended is what was wanted.
        let _ = self.0.await;
    }
}

/// Who has which delivery.
#[derive(Clone)]
pub(super) struct Lease {
    pub(super) store: Arc<Store>,
    pub(super) key: Arc<str>,
    /// What its event says.
    pub(super) content: Option<ContentDigest>,
    pub(super) token: Arc<[u8]>,
}

impl RedisClaim {
    pub(super) fn new(lease: Lease) -> Self {
        let renewal = tokio::spawn(lease.clone().renew_for_ever());
        Self {
            held: Some((lease, Renewal(AbortOnDropHandle::new(renewal)))),
        }
    }
}

impl Lease {
    /// Renews until the task is ended with the claim, or the delivery is found to be another's.
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
                            "a lease ran out while its handler was at work, and another instance has the delivery; its \
                             completion will be refused"
                        );
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(key = &*self.key, %error, "a lease could not be renewed; it is tried again");
                        tokio::time::sleep(lease / TRIES_PER_LEASE).await;
                    }
                }
            }
        }
    }

    /// Takes the delivery if nobody has it, and says who does.
    pub(super) async fn take(&self) -> Result<Value, InboxError> {
        let lease = milliseconds(self.store.settings.lease);
        self.run("claim", scripts::CLAIM, &[&lease]).await
    }

    /// Whether the delivery is still this owner's.
    async fn renew(&self) -> Result<bool, InboxError> {
        let lease = milliseconds(self.store.settings.lease);
        self.run("renew", scripts::RENEW, &[&lease]).await
    }

    /// Notes the delivery as completed; false when it is another's.
    async fn complete(&self, replies: &[u8]) -> Result<bool, InboxError> {
        let (value, retention) = (
            scripts::done(self.content, replies),
            milliseconds(self.store.settings.retention),
        );
        self.run("complete", scripts::COMPLETE, &[&value, &retention])
            .await
    }

    /// Lets others have the delivery; false when it was not this owner's.
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

    /// Gives the delivery back beside everything else, when `before` has ended; tries for as long as the lease would last
    /// anyway. Where there is no runtime, the lease runs out.
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
            let mut asked = Unheard::new(&lease);
            let completed = lease.complete(&replies::encode(&published)).await?;
            asked.heard();
            match completed {
                true => Ok(published),
                false => Err(InboxError::Lost {
                    reason: "its lease ran out while the handler was at work, and another instance took the delivery: the \
                             effect may be there twice; look for what kept this process from renewing it, or set a longer lease"
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
            let mut asked = Unheard::new(&lease);
            lease.release().await?;
            asked.heard();
            Ok(())
        })
    }
}

/// A request about a delivery whose answer was not heard yet. Dropped so, it gives the delivery back: nobody knows whether it is
/// this owner's. One that was completed stays completed.
pub(super) struct Unheard(Option<Lease>);

impl Unheard {
    pub(super) fn new(lease: &Lease) -> Self {
        Self(Some(lease.clone()))
    }

    /// The answer is there.
    pub(super) fn heard(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unheard {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.release_soon(std::future::ready(()));
        }
    }
}

/// As Redis takes times.
fn milliseconds(time: Duration) -> Vec<u8> {
    time.as_millis().max(1).to_string().into_bytes()
}
