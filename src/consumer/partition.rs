//! One assignment of one partition, as poll thread, workers and handlers share it.

use super::ledger::Epoch;
use super::parking::RetryPartition;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// An assigned partition. Revoked once and for all: a partition that comes back is a new one with another epoch.
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) epoch: Epoch,
    /// Where its records are parked.
    pub(crate) retry: Option<RetryPartition>,
    fenced: AtomicBool,
    fence: Notify,
}

impl Partition {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: i32,
        epoch: Epoch,
        retry: Option<RetryPartition>,
    ) -> Self {
        Self {
            topic,
            partition,
            epoch,
            retry,
            fenced: AtomicBool::new(false),
            fence: Notify::new(),
        }
    }

    /// Whether its records can be parked.
    pub(crate) fn can_park(&self) -> bool {
        self.retry.as_ref().is_some_and(RetryPartition::can_park)
    }

    /// From now on no record of this assignment starts, and waits between attempts end.
    pub(crate) fn fence(&self) {
        self.fenced.store(true, Ordering::SeqCst);
        self.fence.notify_waiters();
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Waits for the fence.
    pub(crate) async fn fenced(&self) {
        let notified = self.fence.notified();
        // Registered before the flag is read, or a fence between the two would be missed.
        if !self.fenced.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}
