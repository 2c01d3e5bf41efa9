//! One received batch of records, with a bit for each that says whether it is settled.
//!
//! Workers set bits without a lock, in any order; the committing thread reads them.

use super::epoch::Epoch;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Tracks one received batch: the epoch and the offset of each record, and whether it is settled.
///
/// The committing thread and the workers share it: workers set bits without a lock.
pub(crate) struct TrackedBatch {
    /// The epochs of the batch. Entries refer to them by index.
    pub(super) epochs: Vec<BatchEpoch>,
    /// The records, in the order of their arrival.
    entries: Vec<BatchEntry>,
    /// A bit for each entry. Empty until the batch is sealed.
    settled: Box<[AtomicU64]>,
    /// The number of bits that are not set. 0 makes the batch finished.
    unsettled: AtomicU32,
    /// When the batch was received: the age of its records.
    pub(super) received_at: Instant,
}

/// A record of the batch.
#[derive(Clone, Copy)]
pub(super) struct BatchEntry {
    pub(super) offset: i64,
    /// An index into the epochs of the batch.
    pub(super) epoch: u32,
}

/// An epoch of a batch, with the offset after its highest record.
pub(super) struct BatchEpoch {
    pub(super) epoch: Epoch,
    pub(super) next: i64,
}

impl TrackedBatch {
    /// An empty batch. Every record of it counts as received at `received_at`.
    pub(crate) fn new(records: usize, received_at: Instant) -> Self {
        Self {
            epochs: Vec::new(),
            entries: Vec::with_capacity(records),
            settled: Box::default(),
            unsettled: AtomicU32::new(0),
            received_at,
        }
    }

    /// Adds an epoch. Returns the number that identifies it in [`TrackedBatch::push`].
    pub(crate) fn epoch(&mut self, epoch: Epoch) -> u32 {
        self.epochs.push(BatchEpoch {
            epoch,
            next: i64::MIN,
        });
        (self.epochs.len() - 1) as u32
    }

    /// Adds the next record. `epoch` is the number that [`TrackedBatch::epoch`] returned.
    pub(crate) fn push(&mut self, epoch: u32, offset: i64) {
        self.entries.push(BatchEntry { offset, epoch });
        let run = &mut self.epochs[epoch as usize];
        run.next = run.next.max(offset + 1);
    }

    /// Marks the record at `index` as settled. Settling it again has no effect.
    pub(crate) fn settle(&self, index: usize) {
        self.settle_word(index / 64, 1 << (index % 64));
    }

    /// Marks the records of one word of the bitmap as settled.
    fn settle_word(&self, word: usize, bits: u64) {
        // Release: a thread that sees a bit also sees the effects of the handler.
        let before = self.settled[word].fetch_or(bits, Ordering::Release);
        let fresh = (bits & !before).count_ones();
        self.unsettled.fetch_sub(fresh, Ordering::Release);
    }

    /// Whether all records of the batch are settled.
    pub(super) fn is_finished(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) == 0
    }

    /// Returns the entries that are not settled yet.
    pub(super) fn unsettled(&self) -> impl Iterator<Item = BatchEntry> + '_ {
        self.settled
            .iter()
            .enumerate()
            .flat_map(move |(word_index, word)| {
                let first = word_index * 64;
                let count = (self.entries.len() - first).min(64);
                let all = if count == 64 {
                    u64::MAX
                } else {
                    (1 << count) - 1
                };
                let mut open = !word.load(Ordering::Acquire) & all;
                std::iter::from_fn(move || {
                    let bit = (open != 0).then(|| open.trailing_zeros() as usize)?;
                    open &= open - 1;
                    Some(self.entries[first + bit])
                })
            })
    }

    /// Allocates the bitmap. No record is added afterwards.
    pub(super) fn seal(&mut self) {
        self.settled = (0..self.entries.len().div_ceil(64))
            .map(|_| AtomicU64::new(0))
            .collect();
        *self.unsettled.get_mut() = self.entries.len() as u32;
    }
}

/// Settles records of one batch one after the other. It collects the bits of one word and writes
/// them together: when the next word begins, and on drop. For records that are done at their first
/// poll, this is one atomic operation for 64 of them.
pub(crate) struct SettledBits<'a> {
    batch: &'a TrackedBatch,
    word: usize,
    bits: u64,
}

impl<'a> SettledBits<'a> {
    /// Settles records of this batch.
    pub(crate) fn of(batch: &'a TrackedBatch) -> Self {
        Self {
            batch,
            word: 0,
            bits: 0,
        }
    }

    /// Settles the record at `index`.
    pub(crate) fn add(&mut self, index: usize) {
        if index / 64 != self.word {
            self.flush();
            self.word = index / 64;
        }
        self.bits |= 1 << (index % 64);
    }

    /// Writes the collected bits.
    fn flush(&mut self) {
        if self.bits != 0 {
            self.batch
                .settle_word(self.word, std::mem::take(&mut self.bits));
        }
    }
}

impl Drop for SettledBits<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}
