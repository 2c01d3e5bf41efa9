//! Tracks which records are settled and which offset may be committed.
//!
//! # How
//!
//! A received batch has a bitmap with a bit for each record. Workers set bits without a lock, in
//! any order. The committing thread reads all bitmaps of unfinished batches in one pass and
//! derives, for each assignment, the first unsettled offset (the watermark) and the unsettled
//! ranges above it. The cost of a commit grows with the records in flight, not with the backlog,
//! and settling costs two atomic operations: for a record, or for 64 records that are done at their
//! first poll.
//!
//! # Why it cannot commit too much
//!
//! - A record is in the tracker before a worker can see it: intake admits the batch first.
//! - The release on a bit and the acquire on its reading order the handler's effects before the
//!   commit.
//! - Every entry carries its epoch. A late result sets a bit of an epoch that is no longer tracked,
//!   and counts for nothing.
//! - `next` advances only past offsets that were received or are known to hold no record, so that
//!   the watermark of an assignment without unsettled records is never beyond what was read.
//!
//! # Example
//!
//! An assignment starts at the committed offset 10, and the metadata says that 13 was settled
//! before. Intake receives 10, 11 and 12, passes over 13 and receives 14. The workers settle 11 and
//! 14:
//!
//! ```text
//! offset      10    11       12    13            14       15
//!             open  settled  open  settled above settled  next
//! ```
//!
//! The watermark is 10 and `next` is 15; the unsettled ranges are 10..11 and 12..13. Settling 10
//! moves the watermark to 12, settling 12 to 15.

mod epoch;
mod tracked_batch;

pub(crate) use epoch::Epoch;
pub(crate) use tracked_batch::{SettledBits, TrackedBatch};

use super::commit_metadata::Log;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The progress of a partition: the offset to commit, and the unsettled offsets above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionProgress {
    pub(crate) epoch: Epoch,
    /// The first unsettled offset, which may be committed. None before the first record.
    pub(crate) watermark: Option<i64>,
    /// The offset after the last one that was received or is known to be settled.
    pub(crate) next: Option<i64>,
    /// Unsettled offsets from the watermark up to `next`, as ascending ranges.
    pub(crate) unsettled: Vec<Range<i64>>,
    /// The log that the offsets belong to.
    pub(crate) log: Log,
    /// Whether `unsettled` is complete. If not, it covers the offsets below `next` only.
    pub(crate) is_whole: bool,
    /// Whether the assignment started below the committed offset, so that a lower offset may be
    /// committed.
    pub(crate) may_step_back: bool,
    /// When the record at the watermark was received. None if all records are settled.
    pub(crate) oldest_received_at: Option<Instant>,
}

/// Tracks the offsets of all assigned partitions.
///
/// Locked by the poll thread (assignments, admission) and the committing thread (positions); never
/// by workers.
#[derive(Default)]
pub(crate) struct OffsetTracker {
    /// The assignments in force.
    assignments: HashMap<Epoch, AssignmentProgress>,
    /// Batches with unsettled records, and some finished ones that were not dropped yet.
    batches: Vec<Arc<TrackedBatch>>,
    /// Batches admitted since finished ones were dropped.
    admitted_since_compaction: usize,
}

/// The part of an assignment's progress that its batches do not show.
struct AssignmentProgress {
    next: Option<i64>,
    log: Log,
    may_step_back: bool,
    /// Offsets that earlier assignments settled. Every commit includes them until intake has passed
    /// them.
    settled_above: Vec<Range<i64>>,
}

impl OffsetTracker {
    /// Starts to track an assignment. `settled_above` lists the
    /// offsets above the committed one that are settled already.
    pub(crate) fn assign(&mut self, epoch: Epoch, settled_above: &[Range<i64>]) {
        let settled_above = settled_above.to_vec();
        let assignment = AssignmentProgress {
            next: None,
            log: Log::default(),
            may_step_back: false,
            settled_above,
        };
        self.assignments.insert(epoch, assignment);
    }

    /// Sets the log that an assignment reads, as far as it is known. The metadata of its commits
    /// names it.
    pub(crate) fn reads(&mut self, epoch: Epoch, log: Log) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.log = log;
        }
    }

    /// Updates the leader epoch from received records.
    pub(crate) fn observe_leader_epoch(&mut self, epoch: Epoch, leader_epoch: Option<i32>) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.log.leader_epoch = assignment.log.leader_epoch.max(leader_epoch);
        }
    }

    /// Marks the assignment as started below its committed offset, and discards its settled
    /// offsets.
    pub(crate) fn fall_back(&mut self, epoch: Epoch) {
        self.forget_above(epoch);
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.may_step_back = true;
        }
    }

    /// Discards the offsets that earlier assignments settled: they belong to other records now.
    pub(crate) fn forget_above(&mut self, epoch: Epoch) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.settled_above.clear();
        }
    }

    /// Ends an assignment. Results of its records are ignored from now on.
    ///
    /// Called after the commit of the revoke. A batch is shared by the assignments whose records
    /// arrived together.
    pub(crate) fn revoke(&mut self, epoch: Epoch) {
        self.assignments.remove(&epoch);
        let assignments = &self.assignments;
        // A batch with records of several epochs is kept until all of them are settled or revoked.
        self.batches.retain(|batch| {
            let mut open = batch.unsettled();
            open.any(|entry| assignments.contains_key(&batch.epochs[entry.epoch as usize].epoch))
        });
        self.admitted_since_compaction = 0;
    }

    /// Adds a received batch.
    pub(crate) fn admit(&mut self, mut batch: TrackedBatch) -> Arc<TrackedBatch> {
        batch.seal();
        for run in batch.epochs.iter().filter(|run| run.next > i64::MIN) {
            if let Some(assignment) = self.assignments.get_mut(&run.epoch) {
                assignment.advance(run.next);
            }
        }
        let batch = Arc::new(batch);
        if !batch.is_finished() {
            self.batches.push(Arc::clone(&batch));
        }
        // A scan of all batches on every call would cost more than keeping some finished ones for a
        // while.
        self.admitted_since_compaction += 1;
        if self.admitted_since_compaction * 2 > self.batches.len() {
            self.compact();
        }
        batch
    }

    /// Marks all offsets before `offset` as passed, although no record was received up to there:
    /// the end of a partition after transaction markers, or records that an earlier assignment
    /// settled.
    pub(crate) fn advance(&mut self, epoch: Epoch, offset: i64) {
        if let Some(assignment) = self.assignments.get_mut(&epoch) {
            assignment.advance(offset);
        }
    }

    /// Drops finished batches.
    fn compact(&mut self) {
        self.batches.retain(|batch| !batch.is_finished());
        self.admitted_since_compaction = 0;
    }

    /// Returns the progress of every assigned partition, taken in one pass.
    ///
    /// The result is a snapshot: a bit that is set meanwhile is in the next one. Never too high, as
    /// a bit is only ever set.
    pub(crate) fn positions(&mut self) -> Vec<PartitionProgress> {
        self.compact();
        let mut open: HashMap<Epoch, UnsettledOffsets> =
            HashMap::with_capacity(self.assignments.len());
        for batch in &self.batches {
            for entry in batch.unsettled() {
                let open = open
                    .entry(batch.epochs[entry.epoch as usize].epoch)
                    .or_default();
                if open.first.is_none_or(|(first, _)| entry.offset < first) {
                    open.first = Some((entry.offset, batch.received_at));
                }
                open.offsets.push(entry.offset);
            }
        }
        let position = |(&epoch, assignment): (&Epoch, &AssignmentProgress)| {
            let open = open.remove(&epoch).unwrap_or_default();
            assignment.position(epoch, open)
        };
        self.assignments.iter().map(position).collect()
    }
}

impl AssignmentProgress {
    /// Raises `next`. Never lowers it.
    fn advance(&mut self, offset: i64) {
        self.next = Some(self.next.map_or(offset, |next| next.max(offset)));
    }

    /// The progress with these unsettled records of the batches, and the settled offsets of earlier
    /// assignments above `next`: the gaps between those are unsettled records that were not read
    /// yet.
    fn position(&self, epoch: Epoch, open: UnsettledOffsets) -> PartitionProgress {
        let first = open.first.map(|(offset, _)| offset);
        let mut unsettled = ranges(open.offsets);
        let mut end = self.next;
        if let Some(next) = self.next {
            let mut at = next;
            for run in self.settled_above.iter().filter(|run| run.end > next) {
                if run.start > at {
                    unsettled.push(at..run.start);
                }
                at = run.end;
            }
            end = Some(at);
        }
        PartitionProgress {
            epoch,
            watermark: first
                .or_else(|| unsettled.first().map(|range| range.start))
                .or(end),
            next: end,
            unsettled,
            log: self.log,
            is_whole: true,
            may_step_back: self.may_step_back,
            oldest_received_at: open.first.map(|(_, received_at)| received_at),
        }
    }
}

/// The unsettled records of one assignment.
#[derive(Default)]
struct UnsettledOffsets {
    first: Option<(i64, Instant)>,
    offsets: Vec<i64>,
}

/// The offsets as ascending ranges.
fn ranges(mut offsets: Vec<i64>) -> Vec<Range<i64>> {
    offsets.sort_unstable();
    let mut ranges: Vec<Range<i64>> = Vec::new();
    for offset in offsets {
        match ranges.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => ranges.push(offset..offset + 1),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(
        tracker: &mut OffsetTracker,
        epoch: Epoch,
        offsets: impl IntoIterator<Item = i64>,
    ) -> Arc<TrackedBatch> {
        let mut batch = TrackedBatch::new(0, Instant::now());
        let number = batch.epoch(epoch);
        offsets
            .into_iter()
            .for_each(|offset| batch.push(number, offset));
        tracker.admit(batch)
    }

    fn watermark(tracker: &mut OffsetTracker, epoch: Epoch) -> Option<i64> {
        tracker
            .positions()
            .into_iter()
            .find(|position| position.epoch == epoch)
            .and_then(|position| position.watermark)
    }

    #[test]
    fn the_watermark_is_the_first_unsettled_offset() {
        let (mut tracker, epoch) = (OffsetTracker::default(), Epoch(1));
        tracker.assign(epoch, &[]);
        assert_eq!(watermark(&mut tracker, epoch), None);
        let batch = admit(&mut tracker, epoch, 10..80);
        (1..70).for_each(|index| batch.settle(index));
        assert_eq!(watermark(&mut tracker, epoch), Some(10));
        batch.settle(0);
        assert_eq!(watermark(&mut tracker, epoch), Some(80));
    }

    #[test]
    fn offsets_that_do_not_exist_are_jumped() {
        let (mut tracker, epoch) = (OffsetTracker::default(), Epoch(1));
        tracker.assign(epoch, &[]);
        let batch = admit(&mut tracker, epoch, [3, 7, 20]);
        batch.settle(0);
        assert_eq!(watermark(&mut tracker, epoch), Some(7));
        batch.settle(1);
        batch.settle(1);
        assert_eq!(watermark(&mut tracker, epoch), Some(20));
        batch.settle(2);
        tracker.advance(epoch, 25);
        assert_eq!(watermark(&mut tracker, epoch), Some(25));
    }

    #[test]
    fn a_late_result_of_an_earlier_epoch_moves_nothing() {
        let (mut tracker, before, after) = (OffsetTracker::default(), Epoch(1), Epoch(2));
        tracker.assign(before, &[]);
        let late = admit(&mut tracker, before, 0..3);
        tracker.revoke(before);
        tracker.assign(after, &[]);
        let fresh = admit(&mut tracker, after, 0..3);
        (0..3).for_each(|index| late.settle(index));
        assert_eq!(watermark(&mut tracker, after), Some(0));
        fresh.settle(0);
        assert_eq!(watermark(&mut tracker, after), Some(1));
        assert_eq!(watermark(&mut tracker, before), None);
    }

    #[test]
    fn finished_and_orphaned_batches_are_dropped() {
        let (mut tracker, epoch) = (OffsetTracker::default(), Epoch(1));
        tracker.assign(epoch, &[]);
        let stuck = admit(&mut tracker, epoch, [0]);
        for offset in 1..1_000 {
            admit(&mut tracker, epoch, [offset]).settle(0);
        }
        assert!(
            tracker.batches.len() < 8,
            "{} batches kept",
            tracker.batches.len()
        );
        drop(stuck);
        let other = Epoch(2);
        tracker.assign(other, &[]);
        let mut shared = TrackedBatch::new(2, Instant::now());
        let numbers = [epoch, other].map(|epoch| shared.epoch(epoch));
        numbers
            .into_iter()
            .for_each(|number| shared.push(number, 2_000));
        let shared = tracker.admit(shared);
        shared.settle(1);
        tracker.revoke(epoch);
        assert!(
            tracker.batches.is_empty(),
            "the unsettled record of the shared batch belongs to no current assignment"
        );
    }

    #[test]
    fn offsets_settled_earlier_are_reported_until_intake_has_passed_them() {
        let (mut tracker, epoch) = (OffsetTracker::default(), Epoch(1));
        tracker.assign(epoch, &[7..10, 12..14]);
        let slow = admit(&mut tracker, epoch, [5, 6]);
        let position = tracker.positions().remove(0);
        assert_eq!((position.watermark, position.next), (Some(5), Some(14)));
        assert_eq!(position.unsettled, [5..7, 10..12]);
        slow.settle(0);
        slow.settle(1);
        assert_eq!(watermark(&mut tracker, epoch), Some(10));
        tracker.advance(epoch, 10);
        admit(&mut tracker, epoch, [10, 11]).settle(0);
        assert_eq!(watermark(&mut tracker, epoch), Some(11));
    }

    #[test]
    fn unsettled_offsets_are_reported_as_ranges() {
        let (mut tracker, epoch) = (OffsetTracker::default(), Epoch(1));
        tracker.assign(epoch, &[]);
        let batch = admit(&mut tracker, epoch, 0..10);
        [0, 3, 4, 9]
            .into_iter()
            .for_each(|index| batch.settle(index));
        let position = tracker.positions().remove(0);
        assert_eq!((position.watermark, position.next), (Some(1), Some(10)));
        assert_eq!(position.unsettled, [1..3, 5..9]);
    }
}
