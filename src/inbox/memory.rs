//! An inbox in process memory, for tests and for handlers whose effects are in memory too.
//!
//! Owns one lock per delivery. Knows no effects: it hands out no transaction, so an effect that
//! outlives the process is at least once with it, never exactly once.
//!
//! A claim is the lock itself, so a claim that is dropped anywhere, also by a panic, is abandoned
//! without further work, and the waiting claims of the same delivery continue in their order.

use super::{BoxFuture, Claim, Claimed, Completion, Completions, Inbox, InboxError, InboxKey};
use crate::event::{ContentDigest, OutgoingRecord};
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// An inbox in memory: it knows completed deliveries until the process ends. Clones share their
/// state.
///
/// It never forgets, so its memory grows with the number of events: do not use it in a long-running
/// service. A claim waits without a limit for an open claim of the same delivery.
///
/// # Examples
/// ```
/// use evenkeel::inbox::{Claimed, Inbox, InboxKey, MemoryInbox};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), evenkeel::inbox::InboxError> {
/// let inbox = MemoryInbox::default();
/// let key = InboxKey::new("mailer", "welcome", "/shop/web", "1");
/// let Claimed::Fresh(claim) = inbox.claim(&key).await? else {
///     panic!("a new inbox knows no delivery");
/// };
/// claim.complete(Vec::new()).await?;
/// assert!(matches!(inbox.claim(&key).await?, Claimed::Duplicate { .. }));
/// # Ok(())
/// # }
/// ```
#[derive(Default, Clone)]
pub struct MemoryInbox {
    deliveries: Arc<Mutex<HashMap<InboxKey, Delivery>>>,
}

/// A completed delivery. The holder of the lock has the claim; the others wait in order.
type Delivery = Arc<tokio::sync::Mutex<Option<Completed>>>;

/// What the store keeps of a completed delivery. Without it, the delivery is fresh or claimed.
struct Completed {
    /// The events left to publish; emptied by [`Inbox::sent`].
    published: Vec<OutgoingRecord>,
    content: Option<ContentDigest>,
    at_ms: i64,
}

impl std::fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deliveries = self.deliveries().len();
        f.debug_struct("MemoryInbox")
            .field("deliveries", &deliveries)
            .finish_non_exhaustive()
    }
}

impl MemoryInbox {
    fn deliveries(&self) -> MutexGuard<'_, HashMap<InboxKey, Delivery>> {
        let deliveries = self.deliveries.lock();
        deliveries.unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock of a delivery, created at its first claim. The map is locked for the look-up only.
    fn delivery(&self, key: &InboxKey) -> Delivery {
        let mut deliveries = self.deliveries();
        match deliveries.get(key) {
            Some(known) => known.clone(),
            None => deliveries.entry(key.clone()).or_default().clone(),
        }
    }

    /// Whether any delivery with such a key was completed.
    fn has(&self, is_meant: impl Fn(&InboxKey) -> bool) -> bool {
        let deliveries = self.deliveries();
        let mut meant = deliveries.iter().filter(|(key, _)| is_meant(key));
        meant.any(|(_, delivery)| completion(delivery).is_some())
    }
}

/// The completion of a delivery. Does not wait for an open claim, whose delivery is not completed.
fn completion(delivery: &Delivery) -> Option<Completion> {
    let delivery = delivery.try_lock().ok()?;
    delivery.as_ref().map(|completed| Completion {
        at_ms: completed.at_ms,
        content: completed.content,
    })
}

impl Inbox for MemoryInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(async move {
            let delivery = self.delivery(key).lock_owned().await;
            match &*delivery {
                Some(completed) if key.is_reused(completed.content) => Err(InboxError::Reused),
                Some(completed) => Ok(Claimed::Duplicate {
                    unsent: completed.published.clone(),
                }),
                None => Ok(Claimed::Fresh(Box::new(MemoryClaim {
                    delivery,
                    content: key.content,
                }))),
            }
        })
    }

    fn sent(&self, key: &InboxKey) {
        let delivery = self.deliveries().get(key).cloned();
        // The present holder of the claim publishes once more, and reports that again.
        if let Some(delivery) = delivery
            && let Ok(mut completed) = delivery.try_lock()
            && let Some(completed) = completed.as_mut()
        {
            completed.published = Vec::new();
        }
    }
}

impl Completions for MemoryInbox {
    fn completed<'a>(
        &'a self,
        keys: &'a [InboxKey],
    ) -> BoxFuture<'a, Result<Vec<Option<Completion>>, InboxError>> {
        let deliveries = self.deliveries();
        let told = keys.iter().map(|key| completion(deliveries.get(key)?));
        Box::pin(std::future::ready(Ok(told.collect())))
    }

    fn has_handlers<'a>(
        &'a self,
        group: &'a str,
        handlers: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<bool>, InboxError>> {
        let has = |handler: &String| self.has(|key| key.group == group && key.handler == *handler);
        Box::pin(std::future::ready(Ok(handlers.iter().map(has).collect())))
    }

    fn has_group<'a>(&'a self, group: &'a str) -> BoxFuture<'a, Result<bool, InboxError>> {
        let has = self.has(|key| key.group == group);
        Box::pin(std::future::ready(Ok(has)))
    }
}

/// The claim of a delivery: the owned guard of its lock. Dropping the guard ends the claim, and the
/// value behind it decides whether the next one is fresh.
struct MemoryClaim {
    content: Option<ContentDigest>,
    delivery: OwnedMutexGuard<Option<Completed>>,
}

impl Claim for MemoryClaim {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(
        mut self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        *self.delivery = Some(Completed {
            published: published.clone(),
            content: self.content,
            at_ms: jiff::Timestamp::now().as_millisecond(),
        });
        Box::pin(std::future::ready(Ok(published)))
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryInbox;
    use crate::inbox::{completions, conformance};
    use std::sync::Arc;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_inbox_keeps_the_contract() {
        conformance::check(Arc::new(MemoryInbox::default()), None).await;
    }

    #[tokio::test]
    async fn the_memory_inbox_reports_completions() {
        let inbox = MemoryInbox::default();
        completions::conformance::check("group", &inbox, &inbox).await;
    }
}
