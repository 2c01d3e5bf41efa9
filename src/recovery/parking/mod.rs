//! The parked set of a partition: its waiting keys, the order of their records, and the settled
//! offsets of the retry partition.
//!
//! Pure state: no client, no task, no clock. Owns the parked set of one partition, which is the
//! unsettled part of its retry partition: every reader that starts from the group's committed
//! offset has the same set. Times are milliseconds since the epoch, as on the log.
//!
//! - A key is in the set from the moment when a record of it is about to be written to the retry
//!   topic until the last of its records there is settled. Records of the key that arrive meanwhile
//!   join it: they are written to the retry topic as well. The key stays in the set while a written
//!   record was not yet seen on the log, so that no later record can overtake it.
//! - Only the first of a key's records may be handled. A later record may be fetched in advance:
//!   whether it may start is decided when it is about to.
//! - A failed record stays at its offset. The time of its next attempt is written as a note, which
//!   stays unsettled while a restart needs it.
//! - An entry that Kafka deleted before it was settled is lost. It counts as unsettled until an
//!   operator accepts the loss, so that no restart skips it.
//! - A held key waits for the replay of its dead letter, which takes the place of the failed
//!   record.
//!
//! The set is a function of the log: the entries from the committed offset on, in order, without
//! the offsets settled above it. So a member that takes a partition over rebuilds the same set, and
//! nothing but offsets has to be committed. What a member knows beyond the log (records that it is
//! writing, that it has handed out, that it may not fetch yet) is lost with it, and must not change
//! the set: such state only delays a record or lets a key wait longer.
//!
//! - `seen`: applies the entries of the log; `unsettled`: the offsets that are not settled yet
//! - `key`: a waiting key; `operator`: lists and releases keys; `position`: what is committed
//!
//! The callers are the retry reader, which sees entries and hands out what is due, and the workers,
//! which park, settle and put back. Both hold the lock of the partition.

mod key;
mod operator;
mod position;
mod seen;
mod unsettled;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use super::parked::RetryState;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use key::Key;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::ops::Range;
use unsettled::Unsettled;

/// The most records of one key that are handed out at a time.
const RUN_RECORDS_MAX: usize = 64;

/// A parked record: the number of its key, and its offset in the retry partition.
///
/// A ticket may outlive its record, for example if an operator dropped the key: methods that take a
/// ticket do nothing if its record does not wait any more. Another key may have the same number by
/// then, so the offset is compared too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    key: u32,
    pub(crate) offset: i64,
}

/// The parked set of one partition.
pub(crate) struct ParkedSet {
    /// The longest wait of a record, whatever its headers contain.
    wait_max_ms: i64,
    /// Waiting keys by number. Numbers of keys that have left are reused.
    keys: Vec<Key>,
    /// Numbers of keys that have left.
    free: Vec<u32>,
    /// The number of a key by its name, whose only copy is in `keys`.
    by_name: HashTable<u32>,
    hasher: RandomState,
    /// Records without a key, by offset: each waits for itself.
    nameless: HashMap<i64, u32>,
    /// Keys whose first record is neither handed out nor held, by the time when it is due.
    due: BTreeSet<(i64, u32)>,
    unsettled: Unsettled,
    /// Entries that were deleted from the log unsettled, as ascending ranges.
    lost: Vec<Range<i64>>,
    /// Offsets that an earlier assignment settled, as ascending ranges.
    settled_above: Vec<Range<i64>>,
    /// The highest leader epoch known to that assignment. None if unknown.
    settled_in_epoch: Option<i32>,
    /// The offset after the last entry that was seen.
    next: i64,
    /// The end of the log at the start: the set is complete once it was reached.
    end: i64,
    /// Whether the group has an offset to commit for it: entries were seen, or are being written.
    has_position: bool,
    /// The number of waiting records.
    records: usize,
    /// The number of waiting keys.
    key_count: usize,
}

impl ParkedSet {
    /// Creates the set of a retry partition that is read from `start` on and ends at `end` now.
    /// `settled_above` was settled before. `committed` means that the group has committed an offset
    /// there, which must be kept from expiring.
    pub(crate) fn new(
        start: i64,
        end: i64,
        settled_above: &[Range<i64>],
        wait_max_ms: i64,
        committed: bool,
    ) -> Self {
        Self {
            wait_max_ms,
            keys: Vec::new(),
            free: Vec::new(),
            by_name: HashTable::new(),
            hasher: RandomState::default(),
            nameless: HashMap::new(),
            due: BTreeSet::new(),
            unsettled: Unsettled::default(),
            lost: Vec::new(),
            settled_above: settled_above.to_vec(),
            settled_in_epoch: None,
            next: start,
            end,
            has_position: committed,
            records: 0,
            key_count: 0,
        }
    }

    /// Sets the highest leader epoch that was known when records above the start were settled.
    ///
    /// After an unclean leader election the log may be truncated, and other entries take the
    /// offsets of those that were settled. They have a later epoch (KIP-101, KIP-320).
    pub(crate) fn settled_in_epoch(&mut self, leader_epoch: Option<i32>) {
        self.settled_in_epoch = leader_epoch;
    }

    /// Notes that the next entry was appended under this leader epoch. If it is later than the
    /// known one, the settled offsets belong to other entries now and are discarded. Returns
    /// whether there were any.
    pub(crate) fn observe_leader_epoch(&mut self, leader_epoch: Option<i32>) -> bool {
        let pair = leader_epoch.zip(self.settled_in_epoch);
        let is_outlived = pair.is_some_and(|(entry, settled)| entry > settled);
        is_outlived && !std::mem::take(&mut self.settled_above).is_empty()
    }

    /// Whether all entries were seen that existed at the start: before, the waiting keys are
    /// unknown.
    pub(crate) fn is_whole(&self) -> bool {
        self.next >= self.end
    }

    /// The offset after the last one seen, at which a reader continues.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// The number of waiting keys.
    pub(crate) fn keys(&self) -> usize {
        self.key_count
    }

    /// The number of waiting records.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether a record of this key must be parked behind others. If so, it counts as being
    /// written, and the caller must write it or call [`ParkedSet::not_written`]. Asked for every
    /// record of a partition with waiting keys.
    pub(crate) fn begin_if_waiting(&mut self, name: &[u8], source_offset: i64) -> bool {
        let Some(id) = self.find(name) else {
            return false;
        };
        self.keys[id as usize].writing.push(source_offset);
        true
    }

    /// Notes that a record is about to be written to the retry topic: its key waits from now on.
    /// The caller must report the end: [`ParkedSet::seen`] sees the written entry,
    /// [`ParkedSet::not_written`] follows a refusal. A record without a key has no later ones to
    /// hold back. From now on the group has a position to commit: entries that are deleted before
    /// this member reads them back would not be missed otherwise.
    pub(crate) fn begin(&mut self, name: Option<&[u8]>, source_offset: i64) {
        self.has_position = true;
        if name.is_some() {
            let id = self.find_or_add(name, source_offset);
            self.keys[id as usize].writing.push(source_offset);
        }
    }

    /// Notes that a record was not written: the retry topic refused it.
    pub(crate) fn not_written(&mut self, name: &[u8], source_offset: i64) {
        let Some(id) = self.find(name) else { return };
        let writing = &mut self.keys[id as usize].writing;
        if let Some(at) = writing.iter().position(|writing| *writing == source_offset) {
            writing.swap_remove(at);
        }
        self.remove_if_done(id);
    }

    /// Notes that the note that holds a key for this dead letter was not written.
    pub(crate) fn not_held(&mut self, name: &[u8], source_offset: i64) {
        let Some(id) = self.find(name) else { return };
        let holds_in_writing = &mut self.keys[id as usize].holds_in_writing;
        holds_in_writing.retain(|held| *held != source_offset);
        self.schedule(id);
        self.remove_if_done(id);
    }

    /// Notes that a record is a dead letter, and holds its key from now on: before its note is on
    /// the log, so that no later record of the key starts in between. [`ParkedSet::not_held`] takes
    /// it back.
    pub(crate) fn begin_hold(&mut self, name: &[u8], source_offset: i64) {
        self.has_position = true;
        let id = self.find_or_add(Some(name), source_offset);
        let key = &mut self.keys[id as usize];
        key.holds_in_writing.push(source_offset);
        key.handed_out = 0;
        self.schedule(id);
    }

    /// Takes the keys whose first record is due, with up to `room` records to hand out, in each
    /// key's order. Empty before the set is complete: unseen entries may have to go first.
    ///
    /// Later records of a key are handed out in advance, so that a key that recovers does not need
    /// a round trip for each record. [`ParkedSet::start`] then decides whether a record may start.
    pub(crate) fn take_due(&mut self, now_ms: i64, room: usize) -> Vec<Ticket> {
        let mut tickets = Vec::new();
        let room = if self.is_whole() { room } else { 0 };
        while tickets.len() < room {
            let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now_ms) else {
                break;
            };
            let key = &mut self.keys[id as usize];
            // A replay is far behind the records that it precedes, so it is handed out alone.
            let pairs = key.queue.iter().zip(key.queue.iter().skip(1));
            let ascending = 1 + pairs.take_while(|(offset, next)| offset < next).count();
            let room_left = room - tickets.len();
            key.handed_out = ascending.min(RUN_RECORDS_MAX).min(room_left);
            let run = key.queue.iter().take(key.handed_out);
            tickets.extend(run.map(|offset| Ticket {
                key: id,
                offset: *offset,
            }));
            self.schedule(id);
        }
        tickets
    }

    /// When the next record is due. None if no record waits for its time.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The retry state of a record that is about to start. None if it may not start: it is handed
    /// out again in its turn.
    pub(crate) fn start(&self, ticket: Ticket) -> Option<RetryState> {
        let key = self.key_of(ticket)?;
        (!key.is_held()).then_some(key.wait)
    }

    /// Notes that a parked record is settled, together with the notes about it. The next record of
    /// its key becomes due.
    pub(crate) fn settle(&mut self, ticket: Ticket) {
        self.remove_record(ticket);
    }

    /// Removes a record from the set. Returns whether it waited there.
    fn remove_record(&mut self, ticket: Ticket) -> bool {
        let Ticket { key: id, offset } = ticket;
        let Some(key) = self.keys.get_mut(id as usize) else {
            return false;
        };
        let Some(at) = key.queue.iter().position(|queued| *queued == offset) else {
            return false;
        };
        key.queue.remove(at);
        if at < key.handed_out {
            key.handed_out -= 1;
        }
        let note = if at == 0 {
            (key.wait, key.own_rounds) = (RetryState::default(), None);
            key.note.take()
        } else {
            None
        };
        key.early_replays.retain(|(_, replay)| *replay != offset);
        let holds = key.holds.extract_if(.., |hold| hold.replay == Some(offset));
        let settled = holds.map(|hold| hold.note).chain(note).chain([offset]);
        settled.for_each(|offset| self.unsettled.remove(offset));
        self.records -= 1;
        self.has_position = true;
        self.nameless.remove(&offset);
        self.schedule(id);
        self.remove_if_done(id);
        true
    }

    /// Notes that a parked record failed, and waits again: the note about it, seen later, changes
    /// nothing of the wait. Records of its key that were handed out behind it are handed out again
    /// in their turn.
    pub(crate) fn put_back(&mut self, ticket: Ticket, wait: RetryState) {
        if self.key_of(ticket).is_some() {
            let key = &mut self.keys[ticket.key as usize];
            (key.wait, key.own_rounds) = (wait, Some(wait.rounds));
            key.handed_out = 0;
            self.schedule(ticket.key);
        }
    }

    /// Returns a record that was taken as due but cannot be fetched now, for example because its
    /// leader is down. It and the records behind it are handed out again, the first of its key not
    /// before `until_ms`.
    pub(crate) fn hand_back(&mut self, ticket: Ticket, until_ms: i64) {
        let Some(key) = self.keys.get_mut(ticket.key as usize) else {
            return;
        };
        let mut handed_out = key.queue.iter().take(key.handed_out);
        let Some(at) = handed_out.position(|offset| *offset == ticket.offset) else {
            return;
        };
        key.handed_out = at;
        if at == 0 {
            key.fetch_again_ms = until_ms;
            self.schedule(ticket.key);
        }
    }

    /// Whether all records that were due by then are settled, or wait for a later time: none is
    /// handed out, and none is to be fetched again. A bounded run asks it before it ends.
    pub(crate) fn is_done_with(&self, due_by_ms: i64) -> bool {
        let mut used = self.keys.iter().filter(|key| !key.is_done());
        !used.any(|key| {
            let is_due = !key.queue.is_empty() && !key.is_held();
            key.handed_out > 0 || is_due && key.wait.not_before_ms <= due_by_ms
        })
    }

    /// The key of a record that is the first of its key.
    fn key_of(&self, ticket: Ticket) -> Option<&Key> {
        let key = self.keys.get(ticket.key as usize)?;
        (key.queue.front() == Some(&ticket.offset)).then_some(key)
    }

    /// Adds the key to those due, or removes it, according to its state. Called after every change
    /// of its queue, wait, holds or handed-out records: `due` has a key exactly if its first record
    /// is neither handed out nor held.
    fn schedule(&mut self, id: u32) {
        let key = &mut self.keys[id as usize];
        if let Some(due) = key.scheduled.take() {
            self.due.remove(&(due, id));
        }
        if !key.queue.is_empty() && key.handed_out == 0 && !key.is_held() {
            let due_ms = key.wait.not_before_ms.max(key.fetch_again_ms);
            key.scheduled = Some(due_ms);
            self.due.insert((due_ms, id));
        }
    }

    /// The number of a waiting key.
    fn find(&self, name: &[u8]) -> Option<u32> {
        let is_it = |id: &u32| self.keys[*id as usize].name.as_deref() == Some(name);
        self.by_name
            .find(self.hasher.hash_one(name), is_it)
            .copied()
    }

    /// The number of a key, which joins the set if it does not wait yet. A record without a key
    /// always joins as a new one, under its offset.
    fn find_or_add(&mut self, name: Option<&[u8]>, offset: i64) -> u32 {
        if let Some(id) = name.and_then(|name| self.find(name)) {
            return id;
        }
        let key = Key {
            name: name.map(Into::into),
            ..Key::default()
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[id as usize] = key;
                id
            }
            None => {
                self.keys.push(key);
                (self.keys.len() - 1) as u32
            }
        };
        self.key_count += 1;
        match name {
            Some(name) => {
                let (keys, hasher) = (&self.keys, &self.hasher);
                let hash_of = |id: &u32| {
                    let name = keys[*id as usize].name.as_deref();
                    hasher.hash_one(name.unwrap_or_default())
                };
                self.by_name
                    .insert_unique(hasher.hash_one(name), id, hash_of);
            }
            None => drop(self.nameless.insert(offset, id)),
        }
        id
    }

    /// Removes a key without records, holds or pending writes. Called after every change that may
    /// have ended one of these, so that memory follows the waiting keys.
    fn remove_if_done(&mut self, id: u32) {
        let key = &mut self.keys[id as usize];
        if !key.is_done() {
            return;
        }
        if let Some(name) = key.name.take() {
            let hash = self.hasher.hash_one(&*name);
            if let Ok(entry) = self.by_name.find_entry(hash, |found| *found == id) {
                entry.remove();
            }
        }
        *key = Key::default();
        self.key_count -= 1;
        self.free.push(id);
    }
}
