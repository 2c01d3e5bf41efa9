//! The model of the simulation: topics with their committed offsets, and members with their
//! workers.

use crate::consumer::state::admission::InFlightLimit;
use crate::consumer::state::commit_metadata::SettledAbove;
use crate::consumer::state::lanes::{LaneId, LaneKey, Lanes};
use crate::consumer::state::offset_tracker::{Epoch, OffsetTracker, TrackedBatch};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub(super) const PARTITIONS: usize = 3;
pub(super) const WORKERS: usize = 2;
pub(super) const MEMBERS: usize = 2;
/// Records of each partition: few, so that a schedule reaches their end.
pub(super) const RECORDS: i64 = 24;
/// Keys of each partition: few, so that they collide.
pub(super) const KEYS: u64 = 4;
/// The in-flight limit: small, so that it is reached often.
pub(super) const WINDOW: usize = 8;
pub(super) const CONCURRENCY: usize = 3;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, seedable, and the same everywhere.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True in this share of the calls.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A partition as Kafka and the outside world see it.
#[derive(Default)]
pub(super) struct Topic {
    /// Key by offset; offsets have gaps.
    pub(super) log: BTreeMap<i64, u64>,
    pub(super) committed: Option<(i64, String)>,
    /// Offsets that any member handled with success.
    pub(super) handled: BTreeSet<i64>,
    /// Offsets that the commit of a revoke recorded as settled: they must not be delivered again.
    pub(super) kept: BTreeSet<i64>,
    pub(super) owner: Option<usize>,
}

impl Topic {
    /// The offset after the last record.
    pub(super) fn end(&self) -> i64 {
        self.log
            .last_key_value()
            .map_or(0, |(offset, _)| offset + 1)
    }
}

/// A delivered record, as a worker has it.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) partition: usize,
    pub(super) epoch: Epoch,
    pub(super) offset: i64,
    pub(super) key: u64,
    pub(super) key_bytes: [u8; 8],
    pub(super) batch: Arc<TrackedBatch>,
    pub(super) index: usize,
}

/// What a member knows of a partition that it owns.
pub(super) struct Assignment {
    pub(super) epoch: Epoch,
    pub(super) position: i64,
    pub(super) settled_above: SettledAbove,
}

/// The lanes and the running records of a worker.
#[derive(Default)]
pub(super) struct Worker {
    pub(super) lanes: Lanes<Item>,
    pub(super) running: Vec<(LaneId, Item)>,
}

/// One process of the group.
pub(super) struct Member {
    pub(super) tracker: OffsetTracker,
    pub(super) workers: Vec<Worker>,
    pub(super) assigned: HashMap<usize, Assignment>,
    pub(super) in_flight: usize,
    pub(super) limit: InFlightLimit,
}

impl Member {
    pub(super) fn new() -> Self {
        Self {
            tracker: OffsetTracker::default(),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            assigned: HashMap::new(),
            in_flight: 0,
            limit: InFlightLimit::new(WINDOW, 1 << 20),
        }
    }

    pub(super) fn running(&self) -> usize {
        self.workers.iter().map(|worker| worker.running.len()).sum()
    }
}

impl Member {
    /// Some running record of an epoch, as the number of its worker and its index there.
    pub(super) fn running_of(&self, epoch: Epoch) -> Option<(usize, usize)> {
        let place = |worker: &Worker| {
            let mut running = worker.running.iter();
            running.position(|(_, item)| item.epoch == epoch)
        };
        let mut workers = self.workers.iter().enumerate();
        workers.find_map(|(number, worker)| Some((number, place(worker)?)))
    }
}

/// Every second key shares a hash with its neighbour, so that lanes must compare the keys
/// themselves.
pub(super) fn lane_key(item: &Item) -> LaneKey<'_> {
    LaneKey {
        hash: item.key / 2,
        topic: "t",
        key: &item.key_bytes,
    }
}
