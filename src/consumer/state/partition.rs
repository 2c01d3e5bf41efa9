//! One assignment of one partition. The poll thread, the workers and the handlers share it.
//!
//! Only the fence changes. It is set before a revoke, a pause or the stop has the workers drop
//! waiting records. A worker checks it before each start, and every wait of a retry ends with it.
//! So after the fence was set and every worker has answered, no handler of the partition runs or
//! can start.

use crate::consumer::state::offset_tracker::Epoch;
use crate::consumer::state::retry_partition::RetryPartition;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;

/// An assigned partition. A revoke is final: a partition that is assigned again is a new value with
/// another epoch.
pub(crate) struct Partition {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) epoch: Epoch,
    /// Where its records are parked. None for a partition without a retry topic.
    pub(crate) retry: Option<RetryPartition>,
    /// Set once, never reset.
    fenced: AtomicBool,
    /// Wakes the waits between attempts.
    fence: Notify,
}

impl Partition {
    /// A partition without a fence.
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

    /// Whether its records can be parked: its retry topic exists and was read.
    pub(crate) fn can_park(&self) -> bool {
        self.retry.as_ref().is_some_and(RetryPartition::can_park)
    }

    /// Sets the fence: from now on no record of this assignment starts, and waits between attempts
    /// end.
    pub(crate) fn fence(&self) {
        self.fenced.store(true, Ordering::SeqCst);
        self.fence.notify_waiters();
    }

    /// Whether the fence is set. Relaxed: the answer of a worker to the fence, not this flag,
    /// proves that nothing runs.
    pub(crate) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Waits for the fence. Cancel-safe.
    pub(crate) async fn fenced(&self) {
        let notified = self.fence.notified();
        // The wait is registered before the flag is read, or a fence in between would be missed.
        if !self.fenced.load(Ordering::SeqCst) {
            notified.await;
        }
    }
}

/// The epochs under which a partition's records and its parked records are committed.
///
/// A fence, a commit or a revoke of a partition always concerns both.
pub(crate) fn epochs_of(partition: &Partition) -> impl Iterator<Item = Epoch> {
    let retry = partition.retry.as_ref().map(|retry| retry.epoch);
    std::iter::once(partition.epoch).chain(retry)
}
