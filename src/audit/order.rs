//! Order per key: events take effect in the order in which they stand on the log.
//!
//! Pure. Owns a table of what each key did last, which has no more entries than it was given room for, but for those of a single
//! key: where there are more it lets the half of the keys go that another pass looks at. Keys are known by their fingerprints, and
//! a pass looks at those of a range, so each is looked at in exactly one pass.

use super::subject::Place;
use std::cell::Cell;
use std::collections::HashMap;
use std::ops::RangeInclusive;

/// What the keys of one pass did.
pub(super) struct OrderTable {
    lanes: RangeInclusive<u128>,
    /// Whether there are lanes beyond those.
    has_rest: Cell<bool>,
    entries_max: usize,
    last: HashMap<u128, Last>,
    /// Records whose place in the order was given up, by their lane: they were dead letters before they had their effect.
    late: HashMap<Place, u128>,
}

/// The latest completion of a key so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) offset: i64,
    pub(super) at_ms: i64,
    /// The event's fingerprint.
    pub(super) identity: u128,
}

impl OrderTable {
    /// For the lanes from `start` on, as many as there is room for.
    pub(super) fn new(start: u128, entries_max: usize) -> Self {
        Self {
            lanes: start..=u128::MAX,
            has_rest: Cell::new(false),
            entries_max: entries_max.max(1),
            last: HashMap::new(),
            late: HashMap::new(),
        }
    }

    /// Whether this pass looks at the lane.
    pub(super) fn has(&self, lane: u128) -> bool {
        if lane > *self.lanes.end() {
            self.has_rest.set(true);
        }
        self.lanes.contains(&lane)
    }

    /// Where the next pass begins; none when this was the last, as no lane was asked for that it does not look at.
    pub(super) fn rest(&self) -> Option<u128> {
        let next = self.lanes.end().checked_add(1);
        next.filter(|_| self.has_rest.get())
    }

    /// A record that may have its effect at any time.
    pub(super) fn excuse(&mut self, lane: u128, place: Place) {
        if self.has(lane) {
            self.late.insert(place, lane);
            self.shrink();
        }
    }

    /// A record whose event was completed then. In offset order within each partition. Returns the completion of an earlier
    /// record of the key that is later than this one.
    pub(super) fn see(
        &mut self,
        lane: u128,
        place: Place,
        at_ms: i64,
        identity: u128,
    ) -> Option<Last> {
        if !self.has(lane) || self.late.contains_key(&place) {
            return None;
        }
        let now = Last {
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

    /// Leaves the upper half of the lanes that have entries to a later pass, and all above them; false where only one has any.
    ///
    /// The half is that of the lanes which are there, not of the range: one that has more entries than there is room for would
    /// be approached by a hundred passes, each of them closer by half. So every pass gets done with one lane at least.
    pub(super) fn halve(&mut self) -> bool {
        let mut found: Vec<u128> = self
            .last
            .keys()
            .chain(self.late.values())
            .copied()
            .collect();
        found.sort_unstable();
        found.dedup();
        let Some(end) = found.get(found.len().saturating_sub(1) / 2) else {
            return false;
        };
        let lanes = *self.lanes.start()..=*end;
        self.last.retain(|lane, _| lanes.contains(lane));
        self.late.retain(|_, lane| lanes.contains(lane));
        self.lanes = lanes;
        if found.len() > 1 {
            self.has_rest.set(true);
        }
        found.len() > 1
    }

    fn shrink(&mut self) {
        while self.last.len() + self.late.len() > self.entries_max && self.halve() {}
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

    #[test]
    fn a_completion_before_that_of_an_earlier_record_is_told_and_an_equal_one_is_not() {
        let mut table = OrderTable::new(0, 10);
        let last = |offset, at_ms| {
            Some(Last {
                offset,
                at_ms,
                identity: 0,
            })
        };
        assert_eq!(table.see(1, place(5), 100, 0), None);
        assert_eq!(table.see(1, place(6), 100, 0), None);
        assert_eq!(table.see(2, place(7), 50, 0), None, "another key");
        assert_eq!(table.see(1, place(8), 99, 0), last(6, 100));
        assert_eq!(table.see(1, place(9), 101, 0), None);
        table.excuse(1, place(10));
        assert_eq!(table.see(1, place(10), 500, 0), None);
        assert_eq!(table.see(1, place(11), 102, 0), None);
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
                        if let Some(last) = table.see(*lane, place(offset), *at_ms, 0) {
                            seen.insert((*lane, offset, last.offset));
                        }
                        // Those of one lane are held whatever their number: it cannot be left to another pass.
                        let is_crowded = table.last.len() + table.late.len() > entries_max;
                        let lanes = table.last.keys().chain(table.late.values());
                        let lanes: BTreeSet<&u128> = lanes.collect();
                        assert!(!is_crowded || lanes.len() == 1, "{lanes:?}");
                    }
                    found.extend(seen.into_iter().filter(|(lane, ..)| table.has(*lane)));
                    start = table.rest();
                }
                (found, passes)
            };
            let (whole, passes) = found(usize::MAX);
            prop_assert_eq!(passes, 1);
            prop_assert_eq!(found(entries_max).0, whole);
        }
    }
}
