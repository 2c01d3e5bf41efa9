//! An inbox in process memory, for tests and for handlers whose effects are in memory too.
//!
//! Owns one lock per delivery. Knows no effects: it hands out no transaction, so an effect that
//! outlives the process is at least once with it, never exactly once.

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
/// service.
#[derive(Default, Clone)]
pub struct MemoryInbox {
    deliveries: Arc<Mutex<HashMap<InboxKey, Delivery>>>,
}

/// A completed delivery. The holder of the lock has the claim; the others wait in order.
type Delivery = Arc<tokio::sync::Mutex<Option<Completed>>>;

struct Completed {
    published: Vec<OutgoingRecord>,
    content: Option<ContentDigest>,
    at_ms: i64,
}

impl MemoryInbox {
    fn deliveries(&self) -> MutexGuard<'_, HashMap<InboxKey, Delivery>> {
        let deliveries = self.deliveries.lock();
        deliveries.unwrap_or_else(PoisonError::into_inner)
    }

    fn delivery(&self, key: &InboxKey) -> Delivery {
        let mut deliveries = self.deliveries();
        match deliveries.get(key) {
            Some(known) => known.clone(),
            None => deliveries.entry(key.clone()).or_default().clone(),
        }
    }

    fn has(&self, is_meant: impl Fn(&InboxKey) -> bool) -> bool {
        let deliveries = self.deliveries();
        let mut meant = deliveries.iter().filter(|(key, _)| is_meant(key));
        meant.any(|(_, delivery)| completion(delivery).is_some())
    }
}

/// Does not wait for an open claim, whose delivery is not completed.
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
