//! The group's position in a retry partition: the first unsettled offset and those above it. Lost
//! entries count as unsettled.

use super::{ParkedSet, Ticket};
use std::ops::Range;

/// The most ranges of unsettled offsets in a position: a commit's metadata has no room for more.
pub(super) const RANGES_MAX: usize = 16_384;

/// The position of the group in a retry partition, as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RetryPosition {
    /// The first unsettled offset: the offset to commit.
    pub(crate) watermark: i64,
    /// The offset up to which `unsettled` is complete.
    pub(crate) next: i64,
    /// Ascending ranges from the watermark on.
    pub(crate) unsettled: Vec<Range<i64>>,
    /// Whether `unsettled` is complete up to the end.
    pub(crate) is_whole: bool,
}

impl ParkedSet {
    /// Notes that the log begins at `low`. Entries from `committed` on that are not known as
    /// settled are lost.
    pub(crate) fn log_begins_at(&mut self, low: i64, committed: i64) {
        let mut at = committed;
        for settled in &self.settled_above {
            if settled.start >= low {
                break;
            }
            if settled.start > at {
                self.lost.push(at..settled.start);
            }
            at = settled.end.max(at);
        }
        if at < low {
            self.lost.push(at..low);
        }
    }

    /// Notes that a parked record is no longer on the log. Its key continues without it, and its
    /// offset stays unsettled until an operator accepts the loss.
    pub(crate) fn mark_lost(&mut self, ticket: Ticket) {
        if !self.remove_record(ticket) {
            return;
        }
        let at = self
            .lost
            .partition_point(|range| range.start <= ticket.offset);
        let range = ticket.offset..ticket.offset + 1;
        match at
            .checked_sub(1)
            .and_then(|before| self.lost.get_mut(before))
        {
            Some(before) if before.end >= range.start => before.end = before.end.max(range.end),
            _ => self.lost.insert(at, range),
        }
    }

    /// The number of lost entries.
    pub(crate) fn lost(&self) -> u64 {
        let lengths = self.lost.iter().map(|range| range.end - range.start);
        lengths.sum::<i64>().unsigned_abs()
    }

    /// The first lost entry.
    pub(crate) fn first_lost(&self) -> Option<i64> {
        self.lost.first().map(|range| range.start)
    }

    /// Accepts the loss for an operator: the position may pass the lost entries. Returns their
    /// number.
    pub(crate) fn accept_loss(&mut self) -> u64 {
        let lost = self.lost();
        self.lost.clear();
        lost
    }

    /// The position of the group. None before the set is complete, and if no record was ever
    /// about to be parked. Lost entries count as unsettled. With more ranges than [`RANGES_MAX`] it
    /// contains the first of them: records after these are handled again after a restart.
    pub(crate) fn position(&self) -> Option<RetryPosition> {
        if !self.is_whole() || !self.has_position {
            return None;
        }
        let (unsettled, is_all) = self.unsettled.ranges(RANGES_MAX);
        let unsettled = match self.lost.is_empty() {
            true => unsettled,
            false => merged(&self.lost, unsettled),
        };
        let covered_to = unsettled.last().map_or(self.next, |last| last.end);
        Some(RetryPosition {
            watermark: unsettled.first().map_or(self.next, |first| first.start),
            next: if is_all { self.next } else { covered_to },
            unsettled,
            is_whole: is_all,
        })
    }
}

/// Merges two lists of ascending ranges that share no offset. Adjacent ranges become one.
fn merged(lost: &[Range<i64>], unsettled: Vec<Range<i64>>) -> Vec<Range<i64>> {
    let mut all: Vec<Range<i64>> = lost.iter().cloned().chain(unsettled).collect();
    all.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<i64>> = Vec::with_capacity(all.len());
    for range in all {
        match merged.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}
