//! What a reader of a retry partition has missed: offsets that are left out between those that came.
//!
//! Pure. A client may let go of what it had fetched, and a record that was not seen would be overtaken by its followers. So a gap
//! is believed only where what it leaves out was asked for once more, and did not come.

use super::super::ledger::Epoch;
use std::collections::HashMap;

/// What a message says of the offsets of its partition.
#[derive(Debug, Clone, Copy)]
pub(super) enum Came {
    /// The entry at this offset.
    Entry(i64),
    /// The log ends before this offset.
    End(i64),
    /// An error that stands at no offset.
    Nothing,
}

/// Offsets that did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    /// How many messages came before it.
    pub(super) at: usize,
    /// The first offset that it leaves out.
    pub(super) missing: i64,
}

/// The first gap in what came, where `next` was the offset to come.
pub(super) fn find(mut next: i64, came: impl IntoIterator<Item = Came>) -> Option<Gap> {
    for (at, came) in came.into_iter().enumerate() {
        let (offset, after) = match came {
            Came::Entry(offset) => (offset, offset.saturating_add(1)),
            Came::End(offset) => (offset, offset),
            Came::Nothing => continue,
        };
        if offset > next {
            return Some(Gap { at, missing: next });
        }
        next = next.max(after);
    }
    None
}

/// Gaps of which it was asked for what they leave out.
#[derive(Default)]
pub(super) struct Gaps(HashMap<Epoch, i64>);

impl Gaps {
    /// Whether what this gap leaves out was asked for once more.
    pub(super) fn is_known(&self, epoch: Epoch, gap: &Gap) -> bool {
        self.0.get(&epoch) == Some(&gap.missing)
    }

    /// It was.
    pub(super) fn asked(&mut self, epoch: Epoch, gap: &Gap) {
        self.0.insert(epoch, gap.missing);
    }

    /// These partitions went.
    pub(super) fn forget(&mut self, epochs: &[Epoch]) {
        self.0.retain(|epoch, _| !epochs.contains(epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::Came::{End, Entry, Nothing};
    use super::*;

    fn missing(next: i64, came: &[Came]) -> Option<(usize, i64)> {
        find(next, came.iter().copied()).map(|gap| (gap.at, gap.missing))
    }

    #[test]
    fn a_gap_is_what_is_left_out_between_entries() {
        assert_eq!(missing(5, &[]), None);
        assert_eq!(missing(5, &[Entry(5), Entry(6), End(7)]), None);
        assert_eq!(missing(5, &[Entry(6)]), Some((0, 5)));
        assert_eq!(missing(5, &[Entry(5), Nothing, Entry(8)]), Some((2, 6)));
    }

    #[test]
    fn what_came_before_is_no_gap() {
        assert_eq!(missing(5, &[Entry(3), Entry(4), Entry(5), Entry(6)]), None);
        assert_eq!(missing(5, &[Entry(3), Entry(6)]), Some((1, 5)));
    }

    #[test]
    fn the_end_of_the_log_stands_where_the_next_entry_will() {
        assert_eq!(missing(5, &[End(5), Entry(5)]), None);
        assert_eq!(missing(5, &[End(5), Entry(6)]), Some((1, 5)));
        assert_eq!(missing(5, &[End(6)]), Some((0, 5)));
    }

    #[test]
    fn a_gap_is_known_where_it_was_asked_for_and_nowhere_else() {
        let (mut gaps, [mine, other]) = (Gaps::default(), [Epoch(1), Epoch(2)]);
        let gap = Gap { at: 2, missing: 6 };
        assert!(!gaps.is_known(mine, &gap));
        gaps.asked(mine, &gap);
        // Seen again, it comes first.
        assert!(gaps.is_known(mine, &Gap { at: 0, missing: 6 }));
        assert!(!gaps.is_known(mine, &Gap { at: 0, missing: 7 }));
        assert!(!gaps.is_known(other, &gap));
        gaps.forget(&[mine]);
        assert!(!gaps.is_known(mine, &gap));
    }
}
