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
//!
//! The callers are the retry reader, which sees entries and hands out what is due, and the workers,
//! which park, settle and put back. Both hold the lock of the partition.

mod seen;
mod unsettled;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use super::parked::RetryState;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::ops::Range;
use unsettled::Unsettled;

/// The most records of one key that are handed out at a time.
const RUN_RECORDS_MAX: usize = 64;
/// The most ranges of unsettled offsets in a position: a commit's metadata has no room for more.
const RANGES_MAX: usize = 16_384;

/// A parked record: the number of its key, and its offset in the retry partition.
///
/// A ticket may outlive its record, for example if the key was dropped by an operator: methods that
/// take one do nothing if the record does not wait any more. The number of a key may have been
/// reused by then, which the offset tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    key: u32,
    pub(crate) offset: i64,
}

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

/// The position of the group in a retry partition, as it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The first unsettled offset: the offset to commit.
    pub(crate) watermark: i64,
    /// The offset up to which `unsettled` is complete.
    pub(crate) next: i64,
    /// Ascending ranges from the watermark on.
    pub(crate) unsettled: Vec<Range<i64>>,
    /// Whether `unsettled` is complete up to the end.
    pub(crate) is_whole: bool,
}

/// The parked set of one partition.
pub(crate) struct Parking {
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
    settled_under: Option<i32>,
    /// The offset after the last entry that was seen.
    next: i64,
    /// The end of the log at the start: the set is complete once it was reached.
    end: i64,
    /// Whether the group has an offset to commit for it.
    touched: bool,
    /// The number of waiting records.
    records: usize,
    /// The number of waiting keys.
    in_use: usize,
}

/// The state of a waiting key. It leaves the set when [`Key::is_done`].
#[derive(Default)]
struct Key {
    /// None for a record without a key, which waits for itself alone.
    name: Option<Box<[u8]>>,
    /// Offsets of its parked records, in the order in which they are handled.
    queue: VecDeque<i64>,
    /// The retry state of the first of them.
    wait: RetryState,
    /// The offset of the note with this state.
    note: Option<i64>,
    /// Source offsets of records that are being written.
    writing: Vec<i64>,
    /// Source offsets of dead letters whose note is being written.
    holding: Vec<i64>,
    /// Source offsets whose key was released before the note was seen: the note holds nothing.
    released: Vec<i64>,
    /// Holds that were seen on the log and are not settled.
    holds: Vec<Hold>,
    /// Replays among its records, by source offset and offset, that were seen before the note of
    /// their dead letter.
    early_replays: Vec<(i64, i64)>,
    /// How many of the queue are handed out.
    loaded: usize,
    /// The earliest time of the next try for a due record that could not be fetched.
    again_ms: i64,
    /// The time under which it is in `due`, if it is.
    scheduled: Option<i64>,
}

/// The hold of a key after a dead letter. A key has several only after a restart, if the settlement
/// of the older ones was not committed.
#[derive(Clone, Copy)]
struct Hold {
    /// The offset of the note.
    note: i64,
    /// The source offset of the dead letter.
    origin: i64,
    /// The offset of the replay that takes its place.
    replay: Option<i64>,
}

impl Key {
    /// Whether it waits for the replay of a dead letter.
    fn is_held(&self) -> bool {
        !self.holding.is_empty() || self.holds.iter().any(|hold| hold.replay.is_none())
    }

    /// Whether nothing of it waits, is being written, or is announced on the log.
    fn is_done(&self) -> bool {
        self.queue.is_empty()
            && self.writing.is_empty()
            && self.holding.is_empty()
            && self.released.is_empty()
            && self.holds.is_empty()
    }
}

impl Parking {
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
            settled_under: None,
            next: start,
            end,
            touched: committed,
            records: 0,
            in_use: 0,
        }
    }

    /// Sets the highest leader epoch that was known when records above the start were settled.
    ///
    /// After an unclean leader election the log may be truncated, and other entries take the
    /// offsets of those that were settled. The epoch of an entry tells (KIP-101, KIP-320).
    pub(crate) fn settled_under(&mut self, leader_epoch: Option<i32>) {
        self.settled_under = leader_epoch;
    }

    /// Notes that the next entry was appended under this leader epoch. If it is later than the
    /// known one, the settled offsets belong to other entries now and are discarded. Returns
    /// whether there were any.
    pub(crate) fn led_by(&mut self, leader_epoch: Option<i32>) -> bool {
        let pair = leader_epoch.zip(self.settled_under);
        let is_outlived = pair.is_some_and(|(entry, settled)| entry > settled);
        is_outlived && !std::mem::take(&mut self.settled_above).is_empty()
    }

    /// Notes that the log begins at `low`. Entries from `committed` on that are not known as
    /// settled are lost.
    pub(crate) fn begins_at(&mut self, low: i64, committed: i64) {
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
    pub(crate) fn lose(&mut self, ticket: Ticket) {
        if !self.take_out(ticket) {
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
        self.in_use
    }

    /// The number of waiting records.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether a record of this key must be parked behind others. If so, it counts as being
    /// written, and the caller must write it or call [`Parking::not_written`]. Asked for every
    /// record of a partition with waiting keys.
    pub(crate) fn joins(&mut self, name: &[u8], origin: i64) -> bool {
        let Some(id) = self.find(name) else {
            return false;
        };
        self.keys[id as usize].writing.push(origin);
        true
    }

    /// Notes that a record is about to be written to the retry topic: its key waits from now on.
    /// The caller must report the end: [`Parking::seen`] sees the written entry,
    /// [`Parking::not_written`] follows a refusal. A record without a key has no later ones to hold
    /// back.
    pub(crate) fn begin(&mut self, name: Option<&[u8]>, origin: i64) {
        if name.is_some() {
            let id = self.open(name, origin);
            self.keys[id as usize].writing.push(origin);
        }
    }

    /// Notes that a record was not written: the retry topic refused it.
    pub(crate) fn not_written(&mut self, name: &[u8], origin: i64) {
        let Some(id) = self.find(name) else { return };
        let writing = &mut self.keys[id as usize].writing;
        if let Some(at) = writing.iter().position(|writing| *writing == origin) {
            writing.swap_remove(at);
        }
        self.leave(id);
    }

    /// Notes that the note that holds a key for this dead letter was not written.
    pub(crate) fn not_held(&mut self, name: &[u8], origin: i64) {
        let Some(id) = self.find(name) else { return };
        let holding = &mut self.keys[id as usize].holding;
        holding.retain(|holding| *holding != origin);
        self.schedule(id);
        self.leave(id);
    }

    /// Notes that a record is a dead letter, and holds its key from now on: before its note is on
    /// the log, so that no later record of the key starts in between. [`Parking::not_held`] takes
    /// it back.
    pub(crate) fn begin_hold(&mut self, name: &[u8], origin: i64) {
        let id = self.open(Some(name), origin);
        let key = &mut self.keys[id as usize];
        key.holding.push(origin);
        key.loaded = 0;
        self.schedule(id);
    }

    /// Takes the keys whose first record is due, with up to `room` records to hand out, in each
    /// key's order. Empty before the set is complete: unseen entries may have to go first.
    ///
    /// Later records of a key are handed out in advance, so that a key that recovers is not handled
    /// at one round trip for each record. Whether a record may start is asked again with
    /// [`Parking::start`].
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
            key.loaded = ascending.min(RUN_RECORDS_MAX).min(room_left);
            let run = key.queue.iter().take(key.loaded);
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
        self.take_out(ticket);
    }

    /// Removes a record from the set. Returns whether it waited there.
    fn take_out(&mut self, ticket: Ticket) -> bool {
        let Ticket { key: id, offset } = ticket;
        let Some(key) = self.keys.get_mut(id as usize) else {
            return false;
        };
        let Some(at) = key.queue.iter().position(|queued| *queued == offset) else {
            return false;
        };
        key.queue.remove(at);
        if at < key.loaded {
            key.loaded -= 1;
        }
        let note = if at == 0 {
            key.wait = RetryState::default();
            key.note.take()
        } else {
            None
        };
        key.early_replays.retain(|(_, replay)| *replay != offset);
        let holds = key.holds.extract_if(.., |hold| hold.replay == Some(offset));
        let settled = holds.map(|hold| hold.note).chain(note).chain([offset]);
        settled.for_each(|offset| self.unsettled.remove(offset));
        self.records -= 1;
        self.touched = true;
        self.nameless.remove(&offset);
        self.schedule(id);
        self.leave(id);
        true
    }

    /// Notes that a parked record failed, and waits again. Records of its key that were handed out
    /// behind it are handed out again in their turn.
    pub(crate) fn put_back(&mut self, ticket: Ticket, wait: RetryState) {
        if self.key_of(ticket).is_some() {
            let key = &mut self.keys[ticket.key as usize];
            key.wait = wait;
            key.loaded = 0;
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
        let mut loaded = key.queue.iter().take(key.loaded);
        let Some(at) = loaded.position(|offset| *offset == ticket.offset) else {
            return;
        };
        key.loaded = at;
        if at == 0 {
            key.again_ms = until_ms;
            self.schedule(ticket.key);
        }
    }

    /// Whether all records that were due by then are settled, or wait for a later time: none is
    /// handed out, and none is to be fetched again. A bounded run asks it before it ends.
    pub(crate) fn is_done_with(&self, due_by_ms: i64) -> bool {
        let mut used = self.keys.iter().filter(|key| !key.is_done());
        !used.any(|key| {
            let is_due = !key.queue.is_empty() && !key.is_held();
            key.loaded > 0 || is_due && key.wait.not_before_ms <= due_by_ms
        })
    }

    /// Lets a key continue at once, held or not, for an operator. Returns whether it was waiting. A
    /// hold whose note is not on the log yet is remembered, so that the note holds nothing when it
    /// is seen.
    pub(crate) fn release(&mut self, name: &[u8]) -> bool {
        let Some(id) = self.find(name) else {
            return false;
        };
        let key = &mut self.keys[id as usize];
        key.wait.not_before_ms = 0;
        key.again_ms = 0;
        key.released.append(&mut key.holding);
        for hold in key.holds.extract_if(.., |hold| hold.replay.is_none()) {
            self.unsettled.remove(hold.note);
        }
        self.schedule(id);
        self.leave(id);
        true
    }

    /// Lets every key that waits for its time continue, and returns their number. Held keys stay
    /// held.
    pub(crate) fn release_waiting(&mut self, now_ms: i64) -> usize {
        let waiting = self.due.range((now_ms.saturating_add(1), 0)..);
        let waiting: Vec<u32> = waiting.map(|(_, id)| *id).collect();
        for id in &waiting {
            let key = &mut self.keys[*id as usize];
            (key.wait.not_before_ms, key.again_ms) = (0, 0);
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
                .map(|hold| hold.origin),
        })
    }

    /// The position of the group. None before the set is complete, and if no record was ever
    /// parked. Lost entries count as unsettled. With more ranges than [`RANGES_MAX`] it covers the
    /// first of them: what lies behind is handled again after a restart.
    pub(crate) fn standing(&self) -> Option<Standing> {
        if !self.is_whole() || !self.touched {
            return None;
        }
        let (unsettled, is_all) = self.unsettled.ranges(RANGES_MAX);
        let unsettled = match self.lost.is_empty() {
            true => unsettled,
            false => merged(&self.lost, unsettled),
        };
        let told = unsettled.last().map_or(self.next, |last| last.end);
        Some(Standing {
            watermark: unsettled.first().map_or(self.next, |first| first.start),
            next: if is_all { self.next } else { told },
            unsettled,
            is_whole: is_all,
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
        if !key.queue.is_empty() && key.loaded == 0 && !key.is_held() {
            let due_ms = key.wait.not_before_ms.max(key.again_ms);
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
    fn open(&mut self, name: Option<&[u8]>, offset: i64) -> u32 {
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
        self.in_use += 1;
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
    fn leave(&mut self, id: u32) {
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
        self.in_use -= 1;
        self.free.push(id);
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
