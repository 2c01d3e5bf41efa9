//! A record in its lane, with the place where its settlement is recorded.
//!
//! A record of the source is settled by a bit of its batch, a parked one by its ticket in the
//! parked set. All else about them is the same: lanes, permits, attempts, retries.

use crate::consumer::shared::mailbox::{Burst, ParkedRecord};
use crate::consumer::state::offset_tracker::TrackedBatch;
use crate::consumer::state::partition::Partition;
use crate::event::Record;
use crate::recovery::parked::RetryState;
use crate::recovery::parking::Ticket;
use std::sync::Arc;

/// A record in its lane.
pub(crate) struct Item {
    pub(crate) record: Record,
    pub(crate) partition: Arc<Partition>,
    /// Where its settlement is recorded.
    pub(crate) source: ItemSource,
    pub(crate) hash: u64,
}

/// Where a record's settlement is recorded.
pub(crate) enum ItemSource {
    /// In the tracked batch of its burst, at this index.
    Burst(Arc<TrackedBatch>, usize),
    /// In its retry partition. `retry_state` is set when the record starts.
    Parked {
        ticket: Ticket,
        retry_state: RetryState,
        is_repetition: bool,
    },
}

impl Item {
    /// A parked record. Its retry state is known when it starts.
    pub(crate) fn parked(parked: ParkedRecord) -> Self {
        Self {
            record: parked.record,
            partition: parked.partition,
            source: ItemSource::Parked {
                ticket: parked.ticket,
                retry_state: RetryState::default(),
                is_repetition: parked.is_repetition,
            },
            hash: parked.hash,
        }
    }

    /// The ticket of a parked record, and its retry state.
    pub(crate) fn retry_state(&self) -> (Option<Ticket>, RetryState) {
        match self.source {
            ItemSource::Burst(..) => (None, RetryState::default()),
            ItemSource::Parked {
                ticket,
                retry_state,
                ..
            } => (Some(ticket), retry_state),
        }
    }
}

impl Burst {
    /// One of its records, to be kept beyond the burst.
    pub(crate) fn item(&self, index: usize, record: Record) -> Item {
        let entry = self.entries[index];
        Item {
            record,
            partition: Arc::clone(&self.partitions[entry.partition as usize]),
            source: ItemSource::Burst(Arc::clone(&self.tracker), index),
            hash: entry.hash,
        }
    }
}
