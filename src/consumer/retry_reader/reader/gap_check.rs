//! Detects offsets of a retry partition that the reader has missed between the entries that
//! arrived.
//!
//! A missed entry could be a parked record, or the first one of a key: later records of the key
//! would overtake it. Offsets of the retry topic are contiguous, as it is neither compacted nor
//! written in transactions. So a gap means that the client discarded messages, for example after a
//! seek that crossed a fetch, or that records were deleted. The missing offsets are fetched once
//! more; a gap that stays is passed over and logged.
//!
//! # Example
//!
//! The reader expects 7. Entries at 7 and 8 arrive, then one at 11: the gap is at the third message
//! and misses 9. The first two are added, and the client is sought back to 9. If the next entry is
//! 11 again, 9 and 10 are gone from the log.

use crate::consumer::state::offset_tracker::Epoch;
use std::collections::HashMap;

/// The offset that a message reports.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ReadOutcome {
    /// An entry at this offset.
    Entry(i64),
    /// The end of the log is at this offset.
    End(i64),
    /// An error without an offset.
    Error,
}

/// Offsets that did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    /// The number of messages before it.
    pub(crate) at: usize,
    /// The first missing offset.
    pub(crate) missing: i64,
}

/// Returns the first gap in the messages that arrived. `next` is the first expected offset. Offsets
/// below it are no gap: they were read before.
pub(crate) fn find(mut next: i64, outcomes: impl IntoIterator<Item = ReadOutcome>) -> Option<Gap> {
    for (at, outcome) in outcomes.into_iter().enumerate() {
        let (offset, after) = match outcome {
            ReadOutcome::Entry(offset) => (offset, offset.saturating_add(1)),
            ReadOutcome::End(offset) => (offset, offset),
            ReadOutcome::Error => continue,
        };
        if offset > next {
            return Some(Gap { at, missing: next });
        }
        next = next.max(after);
    }
    None
}

/// Gaps whose missing offsets were fetched again.
#[derive(Default)]
pub(crate) struct Gaps(HashMap<Epoch, i64>);

impl Gaps {
    /// Whether the missing offsets of this gap were fetched again.
    pub(crate) fn was_fetched_again(&self, epoch: Epoch, gap: &Gap) -> bool {
        self.0.get(&epoch) == Some(&gap.missing)
    }

    /// Notes that the missing offsets of this gap were fetched again.
    pub(crate) fn set_fetched_again(&mut self, epoch: Epoch, gap: &Gap) {
        self.0.insert(epoch, gap.missing);
    }

    /// Removes the gaps of revoked epochs.
    pub(crate) fn forget(&mut self, epochs: &[Epoch]) {
        self.0.retain(|epoch, _| !epochs.contains(epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::retry_reader::reader::gap_check::ReadOutcome::{End, Entry, Error};

    fn missing(next: i64, came: &[ReadOutcome]) -> Option<(usize, i64)> {
        find(next, came.iter().copied()).map(|gap| (gap.at, gap.missing))
    }

    #[test]
    fn a_gap_is_a_missing_offset_between_entries() {
        assert_eq!(missing(5, &[]), None);
        assert_eq!(missing(5, &[Entry(5), Entry(6), End(7)]), None);
        assert_eq!(missing(5, &[Entry(6)]), Some((0, 5)));
        assert_eq!(missing(5, &[Entry(5), Error, Entry(8)]), Some((2, 6)));
    }

    #[test]
    fn earlier_offsets_are_no_gap() {
        assert_eq!(missing(5, &[Entry(3), Entry(4), Entry(5), Entry(6)]), None);
        assert_eq!(missing(5, &[Entry(3), Entry(6)]), Some((1, 5)));
    }

    #[test]
    fn the_end_of_the_log_is_the_next_offset() {
        assert_eq!(missing(5, &[End(5), Entry(5)]), None);
        assert_eq!(missing(5, &[End(5), Entry(6)]), Some((1, 5)));
        assert_eq!(missing(5, &[End(6)]), Some((0, 5)));
    }

    #[test]
    fn a_gap_is_known_only_after_it_was_fetched_again() {
        let (mut gaps, [mine, other]) = (Gaps::default(), [Epoch(1), Epoch(2)]);
        let gap = Gap { at: 2, missing: 6 };
        assert!(!gaps.was_fetched_again(mine, &gap));
        gaps.set_fetched_again(mine, &gap);
        // On the second fetch it comes first.
        assert!(gaps.was_fetched_again(mine, &Gap { at: 0, missing: 6 }));
        assert!(!gaps.was_fetched_again(mine, &Gap { at: 0, missing: 7 }));
        assert!(!gaps.was_fetched_again(other, &gap));
        gaps.forget(&[mine]);
        assert!(!gaps.was_fetched_again(mine, &gap));
    }
}
