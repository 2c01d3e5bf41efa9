//! What a worker's records cost in memory: a record that waits costs its own bytes, and not those of its burst.
//!
//! Records of a burst share one buffer, which is free only when the last of them is gone. A record whose attempt failed gets
//! a buffer of its own where it starts to wait. Two kinds are left, and decided on here: records that wait in lanes get a
//! buffer of their own when room is short; records that a running handler holds cannot be exchanged, so that later ones are
//! handed out as copies once such handlers keep too much of other records' bytes. Pure: knows neither lanes nor handlers.

use crate::event::{Record, RecordBatch};
use hashbrown::HashMap;
use std::sync::{Arc, Weak};

/// How much more a burst must take than the copies of what is left of it.
const WORTH_COPYING: usize = 4;

/// Calls what it is given with each handle of a worker.
pub(super) type Handles<'a> = dyn FnMut(&mut dyn FnMut(&mut Record)) + 'a;

/// Gives records buffers of their own where that frees a burst. `records` gives the worker's handles, the same ones at every
/// call: a burst of which others hold handles stays, and a copy of its records would only add to it.
pub(super) fn compact(records: &mut Handles<'_>) {
    let mut bursts: HashMap<*const RecordBatch, Held> = HashMap::new();
    records(&mut |record| {
        let batch = record.batch();
        if batch.len() > 1 {
            let held = bursts.entry(Arc::as_ptr(batch)).or_insert_with(|| Held {
                handles: 0,
                handles_of_all: Arc::strong_count(batch),
                bytes: 0,
                burst_bytes: batch.bytes(),
            });
            held.handles += 1;
            held.bytes += record.bytes_alone();
        }
    });
    bursts.retain(|_, held| held.is_worth_copying());
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

/// What a worker holds of a burst.
struct Held {
    handles: usize,
    handles_of_all: usize,
    /// What copies of the records would take.
    bytes: usize,
    burst_bytes: usize,
}

impl Held {
    fn is_worth_copying(&self) -> bool {
        self.handles >= self.handles_of_all
            && self.bytes + self.bytes / WORTH_COPYING < self.burst_bytes
    }
}

/// The bursts that running handlers keep, and whether further records are handed out as copies.
pub(super) struct Pinned {
    bursts: Vec<Weak<RecordBatch>>,
    /// Bytes that were handed out since the last look.
    unseen: usize,
    /// Bytes of records that are gone and whose bursts are kept, at most.
    waste_max: usize,
    hands_out_copies: bool,
}

impl Pinned {
    /// For one of so many workers that share a limit of bytes in flight.
    pub(super) fn new(in_flight_bytes_max: usize, workers: usize) -> Self {
        Self {
            bursts: Vec::new(),
            unseen: 0,
            waste_max: in_flight_bytes_max / 4 / workers.max(1),
            hands_out_copies: false,
        }
    }

    /// Whether records are to be handed out as copies, so that handlers that keep them keep no others.
    pub(super) fn hands_out_copies(&self) -> bool {
        self.hands_out_copies
    }

    /// The burst was handed out; whoever says so holds a handle of it.
    pub(super) fn handed_out(&mut self, burst: &Arc<RecordBatch>) {
        let is_kept = burst.len() > 1 && Arc::strong_count(burst) > 1;
        if is_kept {
            self.bursts.push(Arc::downgrade(burst));
        }
        if is_kept || self.hands_out_copies {
            self.passed(burst.bytes());
        }
    }

    /// A record that had waited was handed out.
    pub(super) fn started(&mut self, record: &Record) {
        if record.batch().len() > 1 || self.hands_out_copies {
            self.passed(record.bytes_alone());
        }
    }

    /// Looks at all bursts that are kept every so many bytes only.
    fn passed(&mut self, bytes: usize) {
        self.unseen += bytes;
        if self.unseen > self.waste_max / 4 {
            self.look();
        }
    }

    /// Works out anew how much is kept in vain.
    pub(super) fn look(&mut self) {
        self.unseen = 0;
        let mut waste = 0;
        self.bursts.retain(|burst| {
            let Some(burst) = burst.upgrade() else {
                return false;
            };
            // One handle is that of the line above. A record has one or more, so that this is a guess on the low side.
            let (held, all) = (Arc::strong_count(&burst) - 1, burst.len());
            waste += burst.bytes() / all * all.saturating_sub(held);
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
    fn a_burst_that_a_handler_keeps_is_not_copied_on_top() {
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
    fn copies_are_handed_out_while_handlers_keep_too_much_in_vain() {
        let budget = Arc::default();
        let mut pinned = Pinned::new(8 << 20, 2);
        let mut kept = Vec::new();
        let mut bursts = 0;
        while !pinned.hands_out_copies() {
            let mut records = burst(256, 1024, &budget);
            let batch = Arc::clone(records[0].batch());
            records.truncate(1);
            kept.append(&mut records);
            pinned.handed_out(&batch);
            bursts += 1;
        }
        assert!((4..=6).contains(&bursts), "1 MiB in vain: {bursts}");
        kept.truncate(1);
        pinned.look();
        assert!(!pinned.hands_out_copies());
    }

    #[test]
    fn handlers_that_hold_all_of_their_bursts_get_no_copies() {
        let budget = Arc::default();
        let mut pinned = Pinned::new(8 << 20, 2);
        let mut kept = Vec::new();
        for _ in 0..100 {
            let records = burst(256, 1024, &budget);
            let batch = Arc::clone(records[0].batch());
            kept.extend(records);
            pinned.handed_out(&batch);
        }
        assert!(!pinned.hands_out_copies());
    }
}
