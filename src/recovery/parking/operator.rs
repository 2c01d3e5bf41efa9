//! The parked set as an operator sees it: lists the waiting keys, and releases them.

use super::super::parked::RetryState;
use super::ParkedSet;
use std::collections::VecDeque;

/// A waiting key, for listings.
pub(crate) struct WaitingKey<'a> {
    /// The key of the records. None for a record without a key.
    pub(crate) name: Option<&'a [u8]>,
    /// Offsets of its records in the retry partition, in the order in which they are handled.
    pub(crate) queue: &'a VecDeque<i64>,
    /// The retry state of the first of them.
    pub(crate) wait: RetryState,
    /// The dead letter whose replay it waits for, by its offset in the source topic.
    pub(crate) held_for: Option<i64>,
}

impl ParkedSet {
    /// Lets a key continue at once, held or not, for an operator. Returns whether it was waiting. A
    /// hold whose note is not on the log yet is remembered, so that the note holds nothing when it
    /// is seen.
    pub(crate) fn release(&mut self, name: &[u8]) -> bool {
        let Some(id) = self.find(name) else {
            return false;
        };
        let key = &mut self.keys[id as usize];
        key.wait.not_before_ms = 0;
        key.fetch_again_ms = 0;
        key.released.append(&mut key.holds_in_writing);
        for hold in key.holds.extract_if(.., |hold| hold.replay.is_none()) {
            self.unsettled.remove(hold.note);
        }
        self.schedule(id);
        self.remove_if_done(id);
        true
    }

    /// Lets every key that waits for its time continue, and returns their number. Held keys stay
    /// held.
    pub(crate) fn release_waiting(&mut self, now_ms: i64) -> usize {
        let waiting = self.due.range((now_ms.saturating_add(1), 0)..);
        let waiting: Vec<u32> = waiting.map(|(_, id)| *id).collect();
        for id in &waiting {
            let key = &mut self.keys[*id as usize];
            (key.wait.not_before_ms, key.fetch_again_ms) = (0, 0);
            self.schedule(*id);
        }
        waiting.len()
    }

    /// The offset of the first parked record of a key, and whether the key is held. None if no
    /// record of the key is parked.
    pub(crate) fn first_of(&self, name: &[u8]) -> Option<(i64, bool)> {
        let key = &self.keys[self.find(name)? as usize];
        key.queue.front().map(|offset| (*offset, key.is_held()))
    }

    /// The waiting keys, in no order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = WaitingKey<'_>> {
        let used = self.keys.iter().filter(|key| !key.is_done());
        used.map(|key| WaitingKey {
            name: key.name.as_deref(),
            queue: &key.queue,
            wait: key.wait,
            held_for: key
                .holds
                .iter()
                .find(|hold| hold.replay.is_none())
                .map(|hold| hold.source_offset),
        })
    }
}
