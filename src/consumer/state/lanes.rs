//! One lane per key: one record of a lane runs at a time, and the others wait behind it in order.
//!
//! # Invariants
//!
//! - A named lane is in `by_key` as long as a record of its key runs or waits. So a later record of
//!   the key finds it, and cannot overtake.
//! - At most one record of a lane runs. Meanwhile the lane is not in `ready`. A lane with waiting
//!   records of which none runs is in `ready` exactly once.
//! - Lanes are served in the order in which they became ready: a key with many records cannot
//!   starve the others.
//!
//! Keys are compared as a whole, never by their hash alone: two keys with one hash have two lanes.
//!
//! # Example
//!
//! Records of the keys a and b arrive as a1, a2, b1, a3 while one handler may run:
//!
//! | event | runs | waits | ready |
//! |---|---|---|---|
//! | a1 starts at once | a1 | | |
//! | a2, b1, a3 arrive | a1 | a: a2 a3, b: b1 | b |
//! | a1 ends | | a: a2 a3, b: b1 | b, a |
//! | the worker starts the next | b1 | a: a2 a3 | a |
//! | b1 ends, and the worker starts the next | a2 | a: a3 | |
//!
//! b1 is served before a2 because its lane was ready first. a3 waits until a2 has ended.

use hashbrown::HashTable;
use std::collections::VecDeque;

/// Identifies the lane of a record: an exact key of a topic, found by a hash that is computed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneKey<'a> {
    /// The hash of the record, which also chose its worker.
    pub(crate) hash: u64,
    pub(crate) topic: &'a str,
    pub(crate) key: &'a [u8],
}

/// A lane in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneId(u32);

/// The lanes of one worker. `T` is a waiting record.
pub(crate) struct Lanes<T> {
    /// All lanes, in use or free. A [`LaneId`] is an index into it.
    slots: Vec<Lane<T>>,
    /// Indices of lanes that are not in use.
    free: Vec<u32>,
    /// Indices of named lanes in use, by their hash.
    by_key: HashTable<u32>,
    /// Lanes whose first waiting record may start, in the order in which they became ready.
    ready: VecDeque<u32>,
    waiting: usize,
}

/// One lane: its key, and the records that wait in it.
struct Lane<T> {
    /// None for a record that is ordered with no other.
    name: Option<LaneName>,
    queue: VecDeque<T>,
}

/// The key of a lane in use, with its topic and hash.
struct LaneName {
    hash: u64,
    topic: Box<str>,
    key: Box<[u8]>,
}

impl LaneName {
    fn is(&self, lane: LaneKey<'_>) -> bool {
        self.hash == lane.hash && *self.key == *lane.key && *self.topic == *lane.topic
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            ready: VecDeque::new(),
            waiting: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// The number of waiting records.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether a waiting record may start.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a record of this key has to wait behind another.
    pub(crate) fn is_occupied(&self, key: LaneKey<'_>) -> bool {
        !self.by_key.is_empty() && self.find(key).is_some()
    }

    /// Queues a record behind the others of its key. Without a lane yet, it opens one, which is
    /// ready. A record without a key gets a lane of its own.
    pub(crate) fn enqueue(&mut self, record: T, key: impl FnOnce(&T) -> Option<LaneKey<'_>>) {
        let key = key(&record);
        let lane = match key.and_then(|key| self.find(key)) {
            Some(lane) => lane,
            None => {
                let lane = self.open(key);
                self.ready.push_back(lane);
                lane
            }
        };
        self.slots[lane as usize].queue.push_back(record);
        self.waiting += 1;
    }

    /// Returns the waiting records in no particular order.
    pub(crate) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flat_map(|lane| &mut lane.queue)
    }

    /// Opens the lane of a record that has started. Later records of its key wait from now on. The
    /// lane must not be in use: the caller has asked [`Lanes::is_occupied`] before.
    pub(crate) fn occupy(&mut self, key: Option<LaneKey<'_>>) -> LaneId {
        debug_assert!(
            key.is_none_or(|key| !self.is_occupied(key)),
            "a record was started past its lane"
        );
        LaneId(self.open(key))
    }

    /// Takes the record that has been ready longest. Its lane counts as running from now on.
    pub(crate) fn start_next(&mut self) -> Option<(LaneId, T)> {
        while let Some(lane) = self.ready.pop_front() {
            if let Some(record) = self.slots[lane as usize].queue.pop_front() {
                self.waiting -= 1;
                return Some((LaneId(lane), record));
            }
            // All records that waited there were purged.
            self.close(lane);
        }
        None
    }

    /// Ends the running record of a lane. The next record of the lane becomes ready after the lanes
    /// that are ready already; a lane without one closes.
    pub(crate) fn finished(&mut self, LaneId(lane): LaneId) {
        if self.slots[lane as usize].queue.is_empty() {
            self.close(lane);
        } else {
            self.ready.push_back(lane);
        }
    }

    /// Removes every waiting record that `is_purged` selects, and returns their number.
    pub(crate) fn purge(&mut self, mut is_purged: impl FnMut(&T) -> bool) -> usize {
        let before = self.waiting;
        for lane in &mut self.slots {
            let length = lane.queue.len();
            lane.queue.retain(|record| !is_purged(record));
            self.waiting -= length - lane.queue.len();
        }
        before - self.waiting
    }

    /// The lane in use of this key.
    fn find(&self, key: LaneKey<'_>) -> Option<u32> {
        self.by_key
            .find(key.hash, |lane| {
                self.slots[*lane as usize]
                    .name
                    .as_ref()
                    .is_some_and(|name| name.is(key))
            })
            .copied()
    }

    /// Takes a free lane, or adds one, for this key.
    fn open(&mut self, key: Option<LaneKey<'_>>) -> u32 {
        let name = key.map(|key| LaneName {
            hash: key.hash,
            topic: key.topic.into(),
            key: key.key.into(),
        });
        let lane = match self.free.pop() {
            Some(lane) => {
                self.slots[lane as usize].name = name;
                lane
            }
            None => {
                self.slots.push(Lane {
                    name,
                    queue: VecDeque::new(),
                });
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(key) = key {
            let slots = &self.slots;
            self.by_key.insert_unique(key.hash, lane, |lane| {
                slots[*lane as usize]
                    .name
                    .as_ref()
                    .map_or(0, |name| name.hash)
            });
        }
        lane
    }

    /// Frees a lane without records.
    fn close(&mut self, lane: u32) {
        let slot = &mut self.slots[lane as usize];
        if let Some(name) = slot.name.take()
            && let Ok(entry) = self.by_key.find_entry(name.hash, |found| *found == lane)
        {
            entry.remove();
        }
        // A burst on one key must not keep its memory for ever.
        if slot.queue.capacity() > 64 {
            slot.queue = VecDeque::new();
        }
        self.free.push(lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> LaneKey<'static> {
        // All keys share one hash: lanes must compare the keys themselves.
        LaneKey {
            hash: 7,
            topic: "t",
            key: name.as_bytes(),
        }
    }

    #[test]
    fn followers_wait_for_the_running_record_of_their_key_only() {
        let mut lanes = Lanes::default();
        let running = lanes.occupy(Some(key("a")));
        assert!(lanes.is_occupied(key("a")) && !lanes.is_occupied(key("b")));
        assert!(!lanes.is_occupied(LaneKey {
            topic: "u",
            ..key("a")
        }));
        lanes.enqueue(1, |_| Some(key("a")));
        lanes.enqueue(2, |_| Some(key("a")));
        assert!(lanes.start_next().is_none());
        lanes.finished(running);
        let (again, record) = lanes.start_next().expect("1 is ready");
        assert_eq!(record, 1);
        assert!(lanes.start_next().is_none(), "2 waits for 1");
        lanes.finished(again);
        let (last, record) = lanes.start_next().expect("2 is ready");
        assert_eq!(record, 2);
        lanes.finished(last);
        assert!(!lanes.is_occupied(key("a")) && lanes.waiting() == 0);
    }

    #[test]
    fn ready_lanes_take_turns() {
        let mut lanes = Lanes::default();
        for record in [10, 11, 12] {
            lanes.enqueue(record, |_| Some(key("a")));
        }
        lanes.enqueue(20, |_| Some(key("b")));
        lanes.enqueue(30, |_| None);
        let mut order = Vec::new();
        while let Some((lane, record)) = lanes.start_next() {
            order.push(record);
            lanes.finished(lane);
        }
        assert_eq!(order, [10, 20, 30, 11, 12]);
    }

    #[test]
    fn purged_records_never_start_and_their_lane_ends() {
        let mut lanes = Lanes::default();
        let running = lanes.occupy(Some(key("a")));
        (1..=4).for_each(|record| lanes.enqueue(record, |_| Some(key("a"))));
        lanes.enqueue(6, |_| Some(key("b")));
        assert_eq!(lanes.purge(|record| record % 2 == 0), 3);
        assert_eq!(lanes.waiting(), 2);
        assert!(lanes.start_next().is_none());
        assert!(!lanes.is_occupied(key("b")));
        lanes.finished(running);
        assert_eq!(lanes.start_next().map(|(_, record)| record), Some(1));
    }
}
