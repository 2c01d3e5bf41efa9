//! Limits the memory that the records of a worker keep: a waiting record keeps its own bytes, not
//! those of its burst.
//!
//! # The problem
//!
//! The records of a burst share one buffer, which saves an allocation per record. A single slow
//! record would keep up to a megabyte. The byte limit counts whole buffers, so that a few slow
//! records could use it up and stop intake.
//!
//! # Two remedies
//!
//! - [`compact`], when the byte limit is reached: the last records of a burst are copied out, if
//!   the copies are at least a fifth smaller than the burst.
//! - [`RetainedBursts`], before that: handlers may keep records beyond their delivery, where no
//!   copy can replace them. If they keep too many buffers for few records, further records are
//!   passed as copies, so that a handler keeps its record only.
//!
//! # Example
//!
//! A burst of 1,000 records and 1 MB. 998 are done; two of 1 kB each wait for a slow service. Their
//! copies take 2 kB, so that [`compact`] frees nearly 1 MB. If a handler keeps one of the two,
//! copies free nothing: the burst stays in memory, and 998 thousandths of it count as waste.

use crate::event::{Record, RecordBatch};
use hashbrown::HashMap;
use std::sync::{Arc, Weak};

/// A burst is copied if it is larger than the copies by more than one part in this many.
const WORTH_COPYING: usize = 4;

/// Visits every record handle of a worker.
pub(crate) type VisitRecords<'a> = dyn FnMut(&mut dyn FnMut(&mut Record)) + 'a;

/// Copies records to buffers of their own where that frees a burst. `records` visits the worker's
/// handles, the same ones at every call. A burst with handles elsewhere stays in memory, so that
/// copies would only add to it.
pub(crate) fn compact(records: &mut VisitRecords<'_>) {
    let mut bursts: HashMap<*const RecordBatch, BurstHandles> = HashMap::new();
    records(&mut |record| {
        let batch = record.batch();
        if batch.len() > 1 {
            let burst = bursts
                .entry(Arc::as_ptr(batch))
                .or_insert_with(|| BurstHandles {
                    worker_handles: 0,
                    all_handles: Arc::strong_count(batch),
                    bytes: 0,
                    burst_bytes: batch.bytes(),
                });
            burst.worker_handles += 1;
            burst.bytes += record.standalone_bytes();
        }
    });
    bursts.retain(|_, burst| burst.is_worth_copying());
    if bursts.is_empty() {
        return;
    }
    records(&mut |record| {
        if bursts.contains_key(&Arc::as_ptr(record.batch())) {
            let budget = record.batch().budget().cloned();
            *record = record.detached(budget.as_ref());
        }
    });
}

/// The handles of a worker to one burst.
struct BurstHandles {
    worker_handles: usize,
    all_handles: usize,
    /// Bytes of copies of the records.
    bytes: usize,
    burst_bytes: usize,
}

impl BurstHandles {
    /// Whether all handles of the burst are here, and copies would take at most four fifths of its
    /// memory.
    fn is_worth_copying(&self) -> bool {
        self.worker_handles >= self.all_handles
            && self.bytes + self.bytes / WORTH_COPYING < self.burst_bytes
    }
}

/// Tracks the bursts that running handlers keep, and decides whether further records are passed as
/// copies.
///
/// The measure is a lower bound: it assumes that each record of a burst has one handle.
pub(crate) struct RetainedBursts {
    /// Bursts that were passed to handlers and not freed yet.
    bursts: Vec<Weak<RecordBatch>>,
    /// Bytes passed to handlers since the last check.
    unmeasured_bytes: usize,
    /// The most bytes kept for records that are done, in bursts that other records keep.
    waste_max: usize,
    hands_out_copies: bool,
}

impl RetainedBursts {
    /// The limit of one of `workers` workers that share the in-flight limit.
    pub(crate) fn new(in_flight_bytes_max: usize, workers: usize) -> Self {
        Self {
            bursts: Vec::new(),
            unmeasured_bytes: 0,
            waste_max: in_flight_bytes_max / 4 / workers.max(1),
            hands_out_copies: false,
        }
    }

    /// Whether records are passed as copies, so that a handler that keeps a record keeps no others.
    pub(crate) fn hands_out_copies(&self) -> bool {
        self.hands_out_copies
    }

    /// Notes that the burst was passed to handlers. The caller holds a handle of it.
    pub(crate) fn handed_out(&mut self, burst: &Arc<RecordBatch>) {
        let is_kept = burst.len() > 1 && Arc::strong_count(burst) > 1;
        if is_kept {
            self.bursts.push(Arc::downgrade(burst));
        }
        if is_kept || self.hands_out_copies {
            self.count_passed(burst.bytes());
        }
    }

    /// Notes that a waiting record was passed to its handler.
    pub(crate) fn started(&mut self, record: &Record) {
        if record.batch().len() > 1 || self.hands_out_copies {
            self.count_passed(record.standalone_bytes());
        }
    }

    /// Checks the kept bursts once per a number of bytes.
    fn count_passed(&mut self, bytes: usize) {
        self.unmeasured_bytes += bytes;
        if self.unmeasured_bytes > self.waste_max / 4 {
            self.measure();
        }
    }

    /// Measures how much memory is kept for records that are done, and decides about copies.
    ///
    /// Costs a pass over the kept bursts. It runs once per quarter of the accepted waste.
    pub(crate) fn measure(&mut self) {
        self.unmeasured_bytes = 0;
        let mut waste = 0;
        self.bursts.retain(|burst| {
            let Some(burst) = burst.upgrade() else {
                return false;
            };
            // One handle is `burst` itself. A record has one or more, so that the result is a lower
            // bound.
            let (kept, all) = (Arc::strong_count(&burst) - 1, burst.len());
            waste += burst.bytes() / all * all.saturating_sub(kept);
            true
        });
        self.hands_out_copies = waste > self.waste_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RecordBatchBuilder;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn burst(records: usize, bytes: usize, budget: &Arc<AtomicUsize>) -> Vec<Record> {
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source("t".into(), 0);
        for offset in 0..records {
            builder.push(source, offset as i64, -1, None, Some(&vec![0; bytes]), []);
        }
        let batch = builder.build(Some(Arc::clone(budget)));
        (0..records).filter_map(|at| batch.record(at)).collect()
    }

    fn compacted(records: &mut [Record]) {
        compact(&mut |each| records.iter_mut().for_each(each));
    }

    #[test]
    fn the_last_records_of_a_burst_cost_their_own_bytes() {
        for (records, bytes, left) in [(256, 4096, 1), (256, 4096, 100), (4, 300_000, 2)] {
            let budget = Arc::default();
            let mut held = burst(records, bytes, &budget);
            held.truncate(left);
            compacted(&mut held);
            let (now, own) = (budget.load(Ordering::Relaxed), left * (bytes + 300));
            assert!(now < own, "{now} for {left} of {records} of {bytes}");
        }
    }

    #[test]
    fn small_records_do_not_keep_a_large_neighbour() {
        let budget = Arc::default();
        let mut builder = RecordBatchBuilder::new();
        let source = builder.source("t".into(), 0);
        builder.push(source, 0, -1, None, Some(&[0; 900_000]), []);
        for offset in 1..1000 {
            builder.push(source, offset, -1, None, Some(&[0; 100]), []);
        }
        let batch = builder.build(Some(Arc::clone(&budget)));
        let mut held: Vec<_> = (1..1000).filter_map(|at| batch.record(at)).collect();
        drop(batch);
        compacted(&mut held);
        let now = budget.load(Ordering::Relaxed);
        assert!(now < 999 * 400, "{now}");
    }

    #[test]
    fn a_burst_kept_by_a_handler_is_not_copied_too() {
        let budget = Arc::default();
        let mut held = burst(256, 4096, &budget);
        let handlers = held.pop();
        held.truncate(3);
        let before = budget.load(Ordering::Relaxed);
        compacted(&mut held);
        assert_eq!(budget.load(Ordering::Relaxed), before);
        drop(handlers);
        compacted(&mut held);
        assert!(budget.load(Ordering::Relaxed) < 4 * 4096);
    }

    #[test]
    fn a_burst_of_which_nothing_is_gone_is_left_alone() {
        let budget = Arc::default();
        let mut held = burst(256, 4096, &budget);
        let before = budget.load(Ordering::Relaxed);
        compacted(&mut held);
        assert_eq!(budget.load(Ordering::Relaxed), before);
    }

    #[test]
    fn records_are_copied_while_handlers_keep_too_many_bursts() {
        let budget = Arc::default();
        let mut retained = RetainedBursts::new(8 << 20, 2);
        let mut kept = Vec::new();
        let mut bursts = 0;
        while !retained.hands_out_copies() {
            let mut records = burst(256, 1024, &budget);
            let batch = Arc::clone(records[0].batch());
            records.truncate(1);
            kept.append(&mut records);
            retained.handed_out(&batch);
            bursts += 1;
        }
        assert!((4..=6).contains(&bursts), "1 MiB in vain: {bursts}");
        kept.truncate(1);
        retained.measure();
        assert!(!retained.hands_out_copies());
    }

    #[test]
    fn handlers_that_hold_all_of_their_bursts_get_no_copies() {
        let budget = Arc::default();
        let mut retained = RetainedBursts::new(8 << 20, 2);
        let mut kept = Vec::new();
        for _ in 0..100 {
            let records = burst(256, 1024, &budget);
            let batch = Arc::clone(records[0].batch());
            kept.extend(records);
            retained.handed_out(&batch);
        }
        assert!(!retained.hands_out_copies());
    }
}
