//! An inbox in process memory: for tests and for handlers whose effects live in memory too.
//!
//! Owns one lock per delivery. Knows nothing of effects: it has no transaction to hand out, so an effect that outlives
//! the process is at least once with it, never exactly once.

use super::{BoxFuture, Claim, Claimed, Inbox, InboxError, InboxKey};
use crate::event::OutgoingRecord;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;

/// Remembers completed deliveries until the process ends; clones share what they remember.
///
/// It never forgets, so its memory grows with the number of events: not for a long-running service.
#[derive(Default, Clone)]
pub struct MemoryInbox {
    deliveries: Arc<Mutex<HashMap<InboxKey, Delivery>>>,
}

/// What a completed delivery published. Whoever holds the lock has the claim; the others wait in order.
type Delivery = Arc<tokio::sync::Mutex<Option<Vec<OutgoingRecord>>>>;

impl MemoryInbox {
    fn delivery(&self, key: &InboxKey) -> Delivery {
        let mut deliveries = self
            .deliveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match deliveries.get(key) {
            Some(known) => known.clone(),
            None => deliveries.entry(key.clone()).or_default().clone(),
        }
    }
}

impl Inbox for MemoryInbox {
    fn claim<'a>(&'a self, key: &'a InboxKey) -> BoxFuture<'a, Result<Claimed, InboxError>> {
        Box::pin(async move {
            let delivery = self.delivery(key).lock_owned().await;
            Ok(match &*delivery {
                Some(published) => Claimed::Duplicate {
                    unsent: published.clone(),
                },
                None => Claimed::Fresh(Box::new(MemoryClaim { delivery })),
            })
        })
    }
}

struct MemoryClaim {
    delivery: OwnedMutexGuard<Option<Vec<OutgoingRecord>>>,
}

impl Claim for MemoryClaim {
    fn transaction(&mut self) -> Option<Box<dyn Any + Send>> {
        None
    }

    fn complete(
        mut self: Box<Self>,
        published: Vec<OutgoingRecord>,
    ) -> BoxFuture<'static, Result<Vec<OutgoingRecord>, InboxError>> {
        *self.delivery = Some(published.clone());
        Box::pin(std::future::ready(Ok(published)))
    }

    fn abandon(self: Box<Self>) -> BoxFuture<'static, Result<(), InboxError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryInbox;
    use crate::inbox::conformance;
    use std::sync::Arc;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_memory_inbox_keeps_the_contract() {
        conformance::check(Arc::new(MemoryInbox::default()), None).await;
    }
}
