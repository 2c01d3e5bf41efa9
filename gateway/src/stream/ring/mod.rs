//! The latest events of a topic, shared by its subscriptions, and the rules of their positions.
//!
//! Pure: no client, no task and no clock. The reader of the topic appends; subscriptions read,
//! each from its own [`Place`].
//!
//! # Positions
//! The ring is complete for partition p from `complete_from[p]` up to `next[p]`. A place whose
//! positions are all within the ring, or above its end, reads on in the ring. It skips events below
//! its positions, so that it may enter the ring at any sequence number before the first event that
//! it lacks. Any other place is behind, and catches up from the brokers first.
//!
//! # Generations
//! If the log of a partition is cut, or the topic created anew, offsets begin to mean other
//! records. The ring then begins a new generation, and each place is moved by
//! [`Ring::join`], with gaps for what it may have missed.

use crate::stream::frame::StreamedEvent;
use std::collections::VecDeque;
use std::sync::Arc;

/// The most entries that one call of [`Ring::take`] passes over.
const SCAN_MAX: usize = 512;

/// An entry of a ring.
#[derive(Debug, Clone)]
pub(super) enum RingItem {
    Event(Arc<StreamedEvent>),
    Gap(LogGap),
}

/// Offsets of a partition that cannot be delivered: see [`Frame::Gap`](crate::stream::Frame::Gap).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogGap {
    pub(super) partition: i32,
    pub(super) from: i64,
    pub(super) to: i64,
}

/// A record that was read, with its event if it has one that is streamed.
#[derive(Debug, Clone)]
pub(super) struct LogItem {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) event: Option<Arc<StreamedEvent>>,
}

/// What was read of a log, in its order.
#[derive(Debug, Clone)]
pub(super) enum LogEntry {
    Item(LogItem),
    /// Offsets that were deleted, or cannot be read. Before any later record of the partition.
    Gap(LogGap),
}

impl From<LogItem> for LogEntry {
    fn from(item: LogItem) -> Self {
        Self::Item(item)
    }
}

impl From<LogGap> for LogEntry {
    fn from(gap: LogGap) -> Self {
        Self::Gap(gap)
    }
}

/// The position of a subscription in one topic.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The generation of the offsets. None before the first [`Ring::join`].
    generation: Option<u64>,
    /// The sequence number of the next entry, while it reads from the ring.
    sequence: u64,
    /// The next offset of each partition.
    positions: Vec<i64>,
}

impl Place {
    pub(super) fn new(positions: Vec<i64>) -> Self {
        Self {
            generation: None,
            sequence: 0,
            positions,
        }
    }

    /// Positions that were found in this generation.
    pub(super) fn of_generation(positions: Vec<i64>, generation: u64) -> Self {
        Self {
            generation: Some(generation),
            ..Self::new(positions)
        }
    }

    pub(super) fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// Whether the offset is not passed yet. Passes it.
    pub(super) fn pass(&mut self, partition: i32, offset: i64) -> bool {
        self.advance(partition, offset + 1)
    }

    /// Passes all offsets before these.
    pub(super) fn advance_all(&mut self, positions: &[i64]) {
        for (partition, position) in (0..).zip(positions) {
            self.advance(partition, *position);
        }
    }

    /// Passes a gap. Returns the part of it that concerns this place: what is not passed yet.
    pub(super) fn pass_gap(&mut self, gap: LogGap) -> Option<LogGap> {
        let position = self.positions.get(index(gap.partition)).copied();
        let from = gap.from.max(position.unwrap_or(0));
        if gap.to <= from {
            return None;
        }
        self.advance(gap.partition, gap.to);
        Some(LogGap { from, ..gap })
    }

    /// Moves the position up. Returns whether it was below.
    fn advance(&mut self, partition: i32, to: i64) -> bool {
        let at = index(partition);
        if at >= self.positions.len() {
            // A partition that was added meanwhile, from its beginning on.
            self.positions.resize(at + 1, 0);
        }
        let is_below = self.positions[at] < to;
        self.positions[at] = self.positions[at].max(to);
        is_below
    }
}

/// What [`Ring::take`] found.
#[derive(Debug)]
pub(super) enum Taken {
    /// The next event that the subscription wants.
    Event(Arc<StreamedEvent>),
    /// A gap that concerns it.
    Gap(LogGap),
    /// Nothing yet, and more entries are left.
    More,
    /// Nothing: the place is at the end of the ring.
    Nothing,
    /// The place has to join again: its entry is gone, or it is of an earlier generation.
    Lost,
}

/// How [`Ring::join`] went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The place reads from the ring now. There are gaps if the log began anew.
    Ring(Vec<LogGap>),
    /// The place is behind: it needs the records from its positions on, up to these.
    Behind {
        /// Gaps, if the log began anew.
        gaps: Vec<LogGap>,
        /// The end of the ring.
        end: Vec<i64>,
    },
}

/// Why a new generation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    /// Another topic of the same name: no position of before means anything.
    Recreated,
    /// The end of partitions was cut: positions above the new end are moved there.
    Truncated,
}

/// The latest events of a topic.
#[derive(Debug)]
pub(super) struct Ring {
    items: VecDeque<RingItem>,
    /// The sequence number of the first entry.
    first: u64,
    bytes: usize,
    bytes_max: usize,
    items_max: usize,
    complete_from: Vec<i64>,
    next: Vec<i64>,
    generation: u64,
    /// The positions at which the generation began.
    began: Vec<i64>,
    /// The last generation that began with another topic of the same name. 0 if none did.
    recreated_generation: u64,
    /// The positions at which that one began.
    recreated_at: Vec<i64>,
}

impl Ring {
    /// An empty ring at these positions.
    pub(super) fn new(positions: Vec<i64>, bytes_max: usize, items_max: usize) -> Self {
        Self {
            items: VecDeque::new(),
            first: 0,
            bytes: 0,
            bytes_max,
            items_max,
            complete_from: positions.clone(),
            began: positions.clone(),
            next: positions,
            generation: 0,
            recreated_generation: 0,
            recreated_at: Vec::new(),
        }
    }

    /// The offset after the last record of each partition.
    pub(super) fn next(&self) -> &[i64] {
        &self.next
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The generation of the offsets.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Appends a record. One that was appended before is ignored.
    pub(super) fn append(&mut self, item: LogItem) {
        let at = index(item.partition);
        self.grow(at + 1);
        if item.offset < self.next[at] {
            return;
        }
        self.next[at] = item.offset + 1;
        if let Some(event) = item.event {
            self.push(RingItem::Event(event));
        }
    }

    /// Appends a gap. The partition continues after it. One that was passed is ignored: no place
    /// that is beyond it learns of it any more.
    pub(super) fn append_gap(&mut self, gap: LogGap) {
        let at = index(gap.partition);
        self.grow(at + 1);
        if gap.to <= self.next[at] {
            return;
        }
        self.next[at] = gap.to;
        self.push(RingItem::Gap(gap));
    }

    /// Adds partitions up to this number, from their beginning on. Returns whether there are new
    /// ones.
    pub(super) fn grow(&mut self, partitions: usize) -> bool {
        if partitions <= self.next.len() {
            return false;
        }
        for positions in [&mut self.complete_from, &mut self.next, &mut self.began] {
            positions.resize(partitions, 0);
        }
        true
    }

    /// Begins a new generation at these positions. Drops all entries.
    pub(super) fn restart(&mut self, positions: Vec<i64>, restart: Restart) {
        self.first += self.items.len() as u64;
        self.items.clear();
        self.bytes = 0;
        self.complete_from.clone_from(&positions);
        self.began.clone_from(&positions);
        self.generation += 1;
        if restart == Restart::Recreated {
            self.recreated_generation = self.generation;
            self.recreated_at.clone_from(&positions);
        }
        self.next = positions;
    }

    /// Decides where a place continues, and moves it there.
    pub(super) fn join(&self, place: &mut Place) -> Joined {
        let gaps = self.enter_generation(place);
        let position = |at: usize| place.positions.get(at).copied().unwrap_or(0);
        let is_covered = (0..)
            .zip(&self.complete_from)
            .all(|(at, complete)| position(at) >= *complete);
        if !is_covered {
            let end = self.next.clone();
            return Joined::Behind { gaps, end };
        }
        let is_before = |item: &&RingItem| match item {
            RingItem::Event(event) => event.offset < position(index(event.partition)),
            RingItem::Gap(gap) => gap.to <= position(index(gap.partition)),
        };
        let skipped = self.items.iter().take_while(is_before).count();
        place.sequence = self.first + skipped as u64;
        Joined::Ring(gaps)
    }

    /// The next entry for this place that `is_wanted`. At the end of the ring, moves the positions
    /// to it: what came in between was of no interest.
    pub(super) fn take(
        &self,
        place: &mut Place,
        is_wanted: impl Fn(&StreamedEvent) -> bool,
    ) -> Taken {
        if place.generation != Some(self.generation) || place.sequence < self.first {
            return Taken::Lost;
        }
        for _ in 0..SCAN_MAX {
            let at = place.sequence - self.first;
            let Some(item) = self.items.get(at as usize) else {
                place.advance_all(&self.next);
                return Taken::Nothing;
            };
            place.sequence += 1;
            match item {
                RingItem::Event(event) => {
                    if place.pass(event.partition, event.offset) && is_wanted(event) {
                        return Taken::Event(Arc::clone(event));
                    }
                }
                RingItem::Gap(gap) => {
                    if let Some(gap) = place.pass_gap(*gap) {
                        return Taken::Gap(gap);
                    }
                }
            }
        }
        Taken::More
    }

    /// Moves a place of an earlier generation to the present one.
    fn enter_generation(&self, place: &mut Place) -> Vec<LogGap> {
        let came_from = place.generation.replace(self.generation);
        let Some(came_from) = came_from.filter(|generation| *generation != self.generation) else {
            return Vec::new();
        };
        let is_of_other_topic = came_from < self.recreated_generation;
        let mut gaps = Vec::new();
        place.positions.resize(self.next.len(), 0);
        for (partition, (position, began)) in (0..).zip(place.positions.iter_mut().zip(&self.began))
        {
            let to = match is_of_other_topic {
                true => self.recreated_at.get(index(partition)).copied(),
                false => Some((*position).min(*began)),
            };
            let to = to.unwrap_or(0);
            if to != *position {
                let from = std::mem::replace(position, to);
                gaps.push(LogGap {
                    partition,
                    from,
                    to,
                });
            }
        }
        gaps
    }

    fn push(&mut self, item: RingItem) {
        self.bytes += bytes_of(&item);
        self.items.push_back(item);
        while self.items.len() > 1
            && (self.bytes > self.bytes_max || self.items.len() > self.items_max)
        {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let Some(item) = self.items.pop_front() else {
            return;
        };
        self.first += 1;
        self.bytes -= bytes_of(&item);
        let (partition, after) = match item {
            RingItem::Event(event) => (event.partition, event.offset + 1),
            RingItem::Gap(gap) => (gap.partition, gap.to),
        };
        let complete = &mut self.complete_from[index(partition)];
        *complete = (*complete).max(after);
    }
}

fn bytes_of(item: &RingItem) -> usize {
    size_of::<RingItem>()
        + match item {
            RingItem::Event(event) => event.bytes(),
            RingItem::Gap(_) => 0,
        }
}

/// The index of a partition. Brokers number partitions from 0 on.
fn index(partition: i32) -> usize {
    usize::try_from(partition).unwrap_or_default()
}

#[cfg(test)]
mod tests;
