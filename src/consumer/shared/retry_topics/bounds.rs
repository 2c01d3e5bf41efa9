//! Which entries of owned retry partitions may be deleted.
//!
//! Kafka deletes only from the beginning of a partition. Two groups whose names combine to one
//! retry topic share it, and a group must not delete entries of the other. So deletion stops before
//! the first foreign entry, and a partition whose beginning was settled before this assignment is
//! read first.
//!
//! # Example
//!
//! The partition begins at 0, and the group had committed 100 when it was assigned. The offsets 0
//! to 99 are *unread*: before anything is deleted they are read once. If 30 is an entry of another
//! group, nothing from 30 on is ever deleted by this group, whatever it commits.

use std::collections::HashMap;
use std::sync::Arc;

/// The known entries of an owned retry partition. Decides which of them may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeletionBounds {
    /// The first offset at the assignment.
    low: i64,
    /// Entries before this offset were settled before the assignment. Their group is not known.
    unread_to: i64,
    /// The first entry of another group.
    foreign: Option<i64>,
}

impl DeletionBounds {
    /// The bounds of a partition that begins at `low` and is read from `start`.
    pub(crate) fn new(low: i64, start: i64) -> Self {
        Self {
            low,
            unread_to: start,
            foreign: None,
        }
    }

    /// The offsets that must be read before anything is deleted. None if all are known.
    pub(crate) fn unread(&self) -> Option<std::ops::Range<i64>> {
        (self.low < self.unread_to).then_some(self.low..self.unread_to)
    }

    /// Notes that the unread offsets were read. `foreign` is the first entry of another group
    /// among them.
    pub(crate) fn mark_read(&mut self, foreign: Option<i64>) {
        self.unread_to = self.low;
        self.add_foreign(foreign);
    }

    /// Notes an entry of another group, if there is one.
    pub(crate) fn add_foreign(&mut self, foreign: Option<i64>) {
        self.foreign = self.foreign.into_iter().chain(foreign).min();
    }

    /// The offset before which entries may be deleted, given the committed offset.
    pub(crate) fn deletable(&self, committed: i64) -> i64 {
        self.foreign
            .map_or(committed, |foreign| foreign.min(committed))
    }
}

/// The bounds of all owned retry partitions.
#[derive(Default)]
pub(crate) struct AllDeletionBounds(HashMap<Arc<str>, HashMap<i32, DeletionBounds>>);

impl AllDeletionBounds {
    /// Sets the bounds of a partition that is assigned.
    pub(crate) fn begin(&mut self, topic: &Arc<str>, partition: i32, bounds: DeletionBounds) {
        let partitions = self.0.entry(Arc::clone(topic)).or_default();
        partitions.insert(partition, bounds);
    }

    /// Registers an entry of another group. Returns whether it is the first one of the partition.
    pub(crate) fn add_foreign_entry(&mut self, topic: &str, partition: i32, offset: i64) -> bool {
        let Some(bounds) = self.get(topic, partition) else {
            return false;
        };
        let is_first = bounds.foreign.is_none();
        bounds.add_foreign(Some(offset));
        is_first
    }

    /// Removes the bounds of a revoked partition.
    pub(crate) fn forget(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.0.get_mut(topic) {
            partitions.remove(&partition);
        }
    }

    /// The bounds of an owned partition.
    pub(crate) fn get(&mut self, topic: &str, partition: i32) -> Option<&mut DeletionBounds> {
        self.0.get_mut(topic)?.get_mut(&partition)
    }
}
