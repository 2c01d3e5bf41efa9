//! Replies that the brokers have acknowledged: their rows no longer need to keep them.
//!
//! Owns the list of replies to delete, and the time of their deletion. Knows no store. After a
//! crash before the deletion, duplicates publish those replies once more.
//!
//! Deleting is batched in a background task because it is not urgent: an acknowledged reply that
//! stays costs space and, after a crash, a repetition with the same id. Handling events must not
//! wait for it.

use crate::inbox::{InboxError, InboxKey};
use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long sent replies are collected.
const GATHER: Duration = Duration::from_millis(200);

/// How many replies one statement deletes.
const BATCH_MAX: usize = 500;

/// Bounds the replies that wait while the store does not answer; beyond it the oldest stay in their
/// rows.
const WAITING_MAX: usize = 10_000;

/// Deliveries whose replies are to be deleted.
#[derive(Default)]
pub(in crate::inbox) struct Sent {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    /// Deliveries whose replies wait to be deleted, the oldest first.
    keys: VecDeque<InboxKey>,
    /// Whether a task runs that empties the queue. At most one runs per store.
    is_running: bool,
}

/// A store that keeps replies beside its rows. Called in a background task of the store.
pub(in crate::inbox) trait ForgetReplies: Send + Sync + 'static {
    /// The replies to delete in this store.
    fn sent(&self) -> &Sent;
    /// Deletes the replies of these deliveries.
    fn forget_replies(
        &self,
        keys: &[InboxKey],
    ) -> impl Future<Output = Result<(), InboxError>> + Send;
}

/// Deletes a delivery's replies soon, in a background task. Outside of a runtime they stay. Does
/// not block: the lock is held for a push, never over an await.
pub(in crate::inbox) fn forget_soon<S: ForgetReplies>(store: Arc<S>, key: &InboxKey) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let mut waiting = store.sent().lock();
    if waiting.keys.len() == WAITING_MAX {
        waiting.keys.pop_front();
    }
    waiting.keys.push_back(key.clone());
    if !std::mem::replace(&mut waiting.is_running, true) {
        drop(waiting);
        runtime.spawn(forget(store));
    }
}

/// Deletes until no reply waits. The store's error is logged at debug level only, and its replies
/// are not queued again: they stay in their rows, which is harmless.
async fn forget<S: ForgetReplies>(store: Arc<S>) {
    loop {
        tokio::time::sleep(GATHER).await;
        let keys: Vec<InboxKey> = {
            let mut waiting = store.sent().lock();
            if waiting.keys.is_empty() {
                waiting.is_running = false;
                return;
            }
            let count = waiting.keys.len().min(BATCH_MAX);
            waiting.keys.drain(..count).collect()
        };
        if let Err(error) = store.forget_replies(&keys).await {
            tracing::debug!(
                %error,
                deliveries = keys.len(),
                "failed to delete sent replies from the store; duplicates publish them again"
            );
        }
    }
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
