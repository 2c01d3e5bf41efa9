//! Order per key: events take effect in the order of their offsets.
//!
//! Pure. Owns a table with the latest completion of each key. The number of entries is bounded,
//! except for those of a single key. A full table leaves half of its keys to a later pass. Keys are
//! identified by fingerprints, and a pass covers a range of fingerprints, so exactly one pass
//! checks each key.

use crate::audit::identity::Place;
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// The completions of the keys of one pass.
pub(in crate::audit) struct OrderTable {
    lanes: RangeInclusive<u128>,
    /// Whether a later pass is needed for the remaining lanes.
    needs_next_pass: Cell<bool>,
    entries_max: usize,
    last: HashMap<u128, LatestCompletion>,
    /// Records that lost their place in the order, with their lanes: they had been dead letters
    /// before they took effect.
    excused_places: HashMap<Place, u128>,
}

/// The latest completion of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit) struct LatestCompletion {
    pub(in crate::audit) offset: i64,
    pub(in crate::audit) at_ms: i64,
    /// Fingerprint of the event's identity.
    pub(in crate::audit) identity: u128,
}

impl OrderTable {
    /// Covers the lanes from `start` on, as many as fit.
    pub(in crate::audit) fn new(start: u128, entries_max: usize) -> Self {
        Self {
            lanes: start..=u128::MAX,
            needs_next_pass: Cell::new(false),
            entries_max: entries_max.max(1),
            last: HashMap::new(),
            excused_places: HashMap::new(),
        }
    }

    /// Whether this pass covers the lane.
    pub(in crate::audit) fn covers(&self, lane: u128) -> bool {
        if lane > *self.lanes.end() {
            self.needs_next_pass.set(true);
        }
        self.lanes.contains(&lane)
    }

    /// The lane at which the next pass begins. `None` if this pass covered every lane that
    /// occurred.
    pub(in crate::audit) fn next_pass_start(&self) -> Option<u128> {
        let next = self.lanes.end().checked_add(1);
        next.filter(|_| self.needs_next_pass.get())
    }

    /// Excuses a record from the order: it may take effect at any time.
    pub(in crate::audit) fn excuse(&mut self, lane: u128, place: Place) {
        if self.covers(lane) {
            self.excused_places.insert(place, lane);
            self.shrink();
        }
    }

    /// Adds a completion. Call it in offset order within each partition. Returns the completion of
    /// an earlier record of the key if that is later than this one.
    pub(in crate::audit) fn add_completion(
        &mut self,
        lane: u128,
        place: Place,
        at_ms: i64,
        identity: u128,
    ) -> Option<LatestCompletion> {
        if !self.covers(lane) || self.excused_places.contains_key(&place) {
            return None;
        }
        let now = LatestCompletion {
            offset: place.offset,
            at_ms,
            identity,
        };
        let last = self.last.entry(lane).or_insert(now);
        if at_ms < last.at_ms {
            return Some(*last);
        }
        *last = now;
        self.shrink();
        None
    }

    /// Leaves the upper half of the lanes that have entries, and all lanes above them, to a later
    /// pass. Returns false if only one lane has entries.
    ///
    /// Halving the occupied lanes instead of the range of fingerprints guarantees progress: every
    /// pass completes at least one lane. With ranges, a lane with too many entries could take a
    /// hundred passes.
    pub(in crate::audit) fn halve(&mut self) -> bool {
        let mut found: Vec<u128> = self
            .last
            .keys()
            .chain(self.excused_places.values())
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        let Some(end) = found.get(found.len().saturating_sub(1) / 2) else {
            return false;
        };
        let lanes = *self.lanes.start()..=*end;
        self.last.retain(|lane, _| lanes.contains(lane));
        self.excused_places.retain(|_, lane| lanes.contains(lane));
        self.lanes = lanes;
        if found.len() > 1 {
            self.needs_next_pass.set(true);
        }
        found.len() > 1
    }

    fn shrink(&mut self) {
        while self.last.len() + self.excused_places.len() > self.entries_max && self.halve() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn place(offset: i64) -> Place {
        Place {
            partition: 0,
            offset,
        }
    }

    /// Equal times are in order.
    #[test]
    fn a_later_record_completed_before_an_earlier_is_found() {
        let mut table = OrderTable::new(0, 10);
        let last = |offset, at_ms| {
            Some(LatestCompletion {
                offset,
                at_ms,
                identity: 0,
            })
        };
        assert_eq!(table.add_completion(1, place(5), 100, 0), None);
        assert_eq!(table.add_completion(1, place(6), 100, 0), None);
        assert_eq!(
            table.add_completion(2, place(7), 50, 0),
            None,
            "another key"
        );
        assert_eq!(table.add_completion(1, place(8), 99, 0), last(6, 100));
        assert_eq!(table.add_completion(1, place(9), 101, 0), None);
        table.excuse(1, place(10));
        assert_eq!(table.add_completion(1, place(10), 500, 0), None);
        assert_eq!(table.add_completion(1, place(11), 102, 0), None);
    }

    proptest! {
        #[test]
        fn passes_of_any_size_find_together_what_one_pass_finds(
            events in proptest::collection::vec((any::<u128>().prop_map(|lane| lane >> 121 << 121), 0_i64..20), 0..200),
            excused in proptest::collection::btree_set(0_i64..200, 0..20),
            entries_max in 1_usize..40,
        ) {
            let found = |entries_max| {
                let (mut found, mut passes) = (BTreeSet::new(), 0);
                let mut start = Some(0);
                while let Some(from) = start {
                    passes += 1;
                    assert!(passes <= events.len().max(1), "a pass gets done with no lane");
                    let mut table = OrderTable::new(from, entries_max);
                    for (offset, (lane, _)) in (0..).zip(&events) {
                        if excused.contains(&offset) {
                            table.excuse(*lane, place(offset));
                        }
                    }
                    let mut seen = BTreeSet::new();
                    for (offset, (lane, at_ms)) in (0..).zip(&events) {
                        if let Some(last) = table.add_completion(*lane, place(offset), *at_ms, 0) {
                            seen.insert((*lane, offset, last.offset));
                        }
                        // The entries of a single lane are kept whatever their number: no later
                        // pass can take them.
                        let is_crowded = table.last.len() + table.excused_places.len() > entries_max;
                        let lanes = table.last.keys().chain(table.excused_places.values());
                        let lanes: BTreeSet<&u128> = lanes.collect();
                        assert!(!is_crowded || lanes.len() == 1, "{lanes:?}");
                    }
                    found.extend(seen.into_iter().filter(|(lane, ..)| table.covers(*lane)));
                    start = table.next_pass_start();
                }
                (found, passes)
            };
            let (whole, passes) = found(usize::MAX);
            prop_assert_eq!(passes, 1);
            prop_assert_eq!(found(entries_max).0, whole);
        }
    }
}
