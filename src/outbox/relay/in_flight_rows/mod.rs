//! The rows that a relay has read and not settled. Pure: clock and randomness are arguments.
//!
//! Owns the order. At most one row of each key is being sent at a time, and the next is sent only
//! after the brokers acknowledged the one before. A row that lands late, from a relay that was
//! disconnected or taken over, is therefore a repetition or the next row, never a row ahead of its
//! predecessors. A key whose row fails is removed from memory and read again after a wait, from its
//! first row; meanwhile other keys continue. Knows no store, no publisher and no lease.

mod lane;

use super::super::store::{Page, ReadPage, RowId, StoredRow};
use super::blocked_keys::{BlockReason, BlockedKeys};
use super::settings::RelaySettings;
use crate::failure::Backoff;
use lane::{Lane, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use tokio::time::Instant;

/// Bounds the rows of one key in memory, so that a key with many rows leaves room for others.
const LANE_ROWS_MAX: usize = 32;

/// The result of a row that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendOutcome {
    /// The brokers acknowledged it.
    Published,
    /// The topic refused it, and will refuse others.
    Refused(String),
    /// It was refused for a property of its own.
    Unfit(String),
    /// It may or may not have been written.
    Unknown(String),
    /// It was not sent, because the slot was lost meanwhile.
    NotSent,
}

/// An event for the telemetry, as it follows from an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RowSettled {
    /// A key is held from now on, or still.
    Held {
        /// The refused row.
        row: RowId,
        topic: String,
        reason: String,
        /// It was not held before.
        is_new: bool,
        /// It was not held before by this row for this reason.
        needs_mark: bool,
        /// From now on no more keys of the topic are tried.
        stops_topic: bool,
    },
    /// A key waits, because the outcome is not known.
    Delayed { topic: String, reason: String },
    /// A row was published.
    Published { topic: String },
}

/// Rows read and not settled, by key.
pub(super) struct InFlightRows {
    rows_max: usize,
    bytes_max: usize,
    retry: Backoff,
    lanes: BTreeMap<i64, Lane>,
    /// Keys whose next row can be sent, in turn.
    ready: VecDeque<i64>,
    /// When failed keys are read again.
    waiting: BTreeSet<(Instant, i64)>,
    /// The held keys of each topic, and the topics that they stop.
    held: BlockedKeys,
    /// Published rows to be deleted, with their keys.
    published: Vec<(RowId, i64)>,
    /// Rows in memory, being sent or undeleted. Bounded by `rows_max`.
    rows: usize,
    /// Bytes of the rows in memory and being sent. A row that was published counts no more.
    bytes: usize,
    /// Keys may be read that the last read excluded: a key is not in memory any more or became due,
    /// or its topic is not stopped any more.
    has_readable: bool,
}

impl InFlightRows {
    pub(super) fn new(settings: &RelaySettings) -> Self {
        Self {
            rows_max: settings.rows_max,
            bytes_max: settings.bytes_max,
            retry: settings.retry,
            lanes: BTreeMap::new(),
            ready: VecDeque::new(),
            waiting: BTreeSet::new(),
            held: BlockedKeys::default(),
            published: Vec::new(),
            rows: 0,
            bytes: 0,
            has_readable: false,
        }
    }

    /// The next page to read from these slots; `None` while there is little room.
    pub(super) fn page(&self, slots: &BTreeSet<i16>) -> Option<Page> {
        if slots.is_empty() || !self.has_room() {
            return None;
        }
        let (due, without): (Vec<_>, Vec<_>) = self
            .lanes
            .iter()
            .partition(|(_, lane)| lane.is_to_be_read());
        let keys = |lanes: Vec<(&i64, &Lane)>| lanes.into_iter().map(|(key, _)| *key).collect();
        Some(Page {
            slots: slots.iter().copied().collect(),
            without_keys: keys(without),
            without_topics: self.held.stopped(),
            due_keys: keys(due),
            rows_max: self.rows_max - self.rows,
            bytes_max: self.bytes_max - self.bytes,
        })
    }

    /// The topics of which no more keys are tried.
    pub(super) fn stopped_topics(&self) -> Vec<String> {
        self.held.stopped()
    }

    /// Whether a read is worthwhile: a quarter of the room must be free, so that a full relay
    /// does not read row by row.
    pub(super) fn has_room(&self) -> bool {
        let free = self.rows_max.saturating_sub(self.rows);
        free > 0 && free >= self.rows_max / 4 && self.bytes < self.bytes_max
    }

    /// Adds the rows of a page. Returns whether more may be read at once.
    pub(super) fn take(&mut self, page: ReadPage) -> bool {
        let mut fresh = BTreeSet::new();
        let mut is_whole = page.is_whole;
        for row in page.rows {
            let key = row.key_hash;
            let lane = self.lanes.entry(key).or_insert_with(|| Lane::of(&row));
            if fresh.insert(key) {
                if !lane.is_to_be_read() {
                    // The read excluded this key.
                    fresh.remove(&key);
                    continue;
                }
                lane.state = State::Open;
                self.ready.push_back(key);
            }
            if lane.queue.len() == LANE_ROWS_MAX {
                is_whole = false;
                continue;
            }
            self.rows += 1;
            self.bytes += row.bytes;
            lane.queue.push_back(row);
        }
        if page.is_whole {
            // Their rows were deleted by an operator: they are no longer held.
            let gone = self.lanes.iter().filter(|(_, lane)| lane.is_to_be_read());
            let gone: Vec<i64> = gone.map(|(key, _)| *key).collect();
            gone.into_iter().for_each(|key| self.drop_lane(key));
        }
        self.take_readable() || !is_whole
    }

    /// Whether there may be a row to send.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The next row to send. `may_send` returns whether a slot is leased.
    pub(super) fn next(&mut self, may_send: impl Fn(i16) -> bool) -> Option<StoredRow> {
        loop {
            let key = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            if lane.state != State::Open {
                continue;
            }
            if !may_send(lane.slot) {
                // Read again when the slot is leased again.
                self.drop_queued(key);
                self.drop_lane(key);
                continue;
            }
            if let Some(row) = lane.queue.pop_front() {
                lane.state = State::Sending {
                    row: row.id.clone(),
                    bytes: row.bytes,
                };
                return Some(row);
            }
        }
    }

    /// Records the outcome of the row of this key that was being sent; `random` is uniform in [0,
    /// 1).
    pub(super) fn settle(
        &mut self,
        key: i64,
        outcome: SendOutcome,
        now: Instant,
        random: f64,
    ) -> Option<RowSettled> {
        let lane = self.lanes.get_mut(&key)?;
        let State::Sending { row, bytes } = lane.state.clone() else {
            return None;
        };
        lane.state = State::Open;
        self.bytes -= bytes;
        let topic = lane.topic.clone();
        let (reason, held) = match outcome {
            SendOutcome::Published => {
                lane.undeleted += 1;
                lane.failures = 0;
                if !lane.queue.is_empty() {
                    self.ready.push_back(key);
                }
                self.published.push((row, key));
                self.release_key(key);
                return Some(RowSettled::Published { topic });
            }
            SendOutcome::NotSent => {
                self.rows -= 1;
                self.drop_queued(key);
                self.drop_lane(key);
                return None;
            }
            SendOutcome::Unknown(reason) => (reason, None),
            SendOutcome::Refused(reason) => (reason, Some(BlockReason::Refused)),
            SendOutcome::Unfit(reason) => (reason, Some(BlockReason::Unfit)),
        };
        self.rows -= 1;
        self.drop_queued(key);
        if self.lanes.get(&key).is_some_and(|lane| lane.is_lost) {
            self.drop_lane(key);
            return Some(RowSettled::Delayed { topic, reason });
        }
        self.read_again_later(key, now, random);
        let Some(held) = held else {
            return Some(RowSettled::Delayed { topic, reason });
        };
        let lane = self.lanes.get_mut(&key)?;
        let by = Some((row.clone(), hash(&reason)));
        let needs_mark = lane.held_by != by;
        lane.held_by = by;
        let (is_new, is_other) = (lane.held == BlockReason::No, lane.held != held);
        let mut stops_topic = false;
        if is_other {
            self.release_key(key);
            stops_topic = self.hold_key(key, held);
        }
        Some(RowSettled::Held {
            row,
            topic,
            reason,
            is_new,
            needs_mark,
            stops_topic,
        })
    }

    /// The published rows that the store still has.
    pub(super) fn published(&self) -> Vec<RowId> {
        self.published.iter().map(|(row, _)| row.clone()).collect()
    }

    /// Whether there are published rows that the store has not deleted.
    pub(super) fn has_published(&self) -> bool {
        !self.published.is_empty()
    }

    /// Records that the store deleted the first `count` of [`InFlightRows::published`]. Returns
    /// whether a read may bring rows of their keys. Those of keys that have more rows in memory
    /// are excluded still: such a read would pass over the whole backlog for nothing.
    pub(super) fn deleted(&mut self, count: usize) -> bool {
        for (_, key) in self.published.drain(..count).collect::<Vec<_>>() {
            self.rows -= 1;
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.undeleted -= 1;
                self.has_readable |= lane.is_to_be_read();
                self.remove_if_done(key);
            }
        }
        self.take_readable()
    }

    /// Makes the keys due that have waited long enough. Returns whether there are any, or others
    /// that can be read since the last call.
    pub(super) fn wake(&mut self, now: Instant) -> bool {
        while let Some((at, key)) = self.waiting.first().copied()
            && at <= now
        {
            self.waiting.pop_first();
            if let Some(lane) = self.lanes.get_mut(&key) {
                lane.state = State::Due;
                self.has_readable = true;
            }
        }
        self.take_readable()
    }

    /// Whether keys may be read that the last read excluded. Only the first call returns it.
    fn take_readable(&mut self) -> bool {
        std::mem::take(&mut self.has_readable)
    }

    /// When the next failed key is read again.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Records the loss of these slots: removes their rows, except for those being sent.
    pub(super) fn lose_slots(&mut self, slots: &[i16]) {
        let lost = self
            .lanes
            .iter()
            .filter(|(_, lane)| slots.contains(&lane.slot));
        for key in lost.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.drop_queued(key);
            self.drop_lane(key);
        }
    }

    /// Removes all rows, except for those being sent.
    pub(super) fn close(&mut self) {
        for key in self.lanes.keys().copied().collect::<Vec<_>>() {
            self.drop_queued(key);
        }
    }

    /// Whether a row of this slot is being sent or not deleted yet.
    pub(super) fn is_busy(&self, slot: i16) -> bool {
        let mut lanes = self.lanes.values().filter(|lane| lane.slot == slot);
        lanes.any(|lane| lane.undeleted > 0 || matches!(lane.state, State::Sending { .. }))
    }

    /// Whether it holds no rows.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The number of keys that wait because their first row was refused.
    pub(super) fn held_keys(&self) -> usize {
        self.lanes
            .values()
            .filter(|lane| lane.held != BlockReason::No)
            .count()
    }

    /// Removes the rows of a key that are not being sent: the store has them.
    fn drop_queued(&mut self, key: i64) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            for row in lane.queue.drain(..) {
                self.rows -= 1;
                self.bytes -= row.bytes;
            }
        }
    }

    /// Removes an empty lane, as soon as none of its rows is being sent or undeleted.
    fn drop_lane(&mut self, key: i64) {
        self.release_key(key);
        if let Some(lane) = self.lanes.get_mut(&key) {
            match lane.state {
                State::Sending { .. } => lane.is_lost = true,
                State::Waiting(at) => {
                    self.waiting.remove(&(at, key));
                    lane.state = State::Open;
                }
                State::Due | State::Open => lane.state = State::Open,
            }
            self.remove_if_done(key);
        }
    }

    /// Removes a key that has nothing in memory and waits for nothing.
    fn remove_if_done(&mut self, key: i64) {
        if self.lanes.get(&key).is_some_and(Lane::is_done) {
            self.lanes.remove(&key);
            self.has_readable = true;
        }
    }

    /// Has the key read again after the backoff.
    fn read_again_later(&mut self, key: i64, now: Instant, random: f64) {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.failures = lane.failures.saturating_add(1);
            let at = now + self.retry.delay(lane.failures, random);
            lane.state = State::Waiting(at);
            self.waiting.insert((at, key));
        }
    }

    /// Marks a key as held that is not held yet. Returns whether that stops its topic.
    fn hold_key(&mut self, key: i64, held: BlockReason) -> bool {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return false;
        };
        lane.held = held;
        self.held.block(&lane.topic, held)
    }

    /// Releases a held key. If its topic had been stopped, the topic's other keys are tried at
    /// once.
    fn release_key(&mut self, key: i64) {
        let Some(lane) = self.lanes.get_mut(&key) else {
            return;
        };
        let held = std::mem::replace(&mut lane.held, BlockReason::No);
        if held == BlockReason::No {
            return;
        }
        let topic = lane.topic.clone();
        let was_stopped = self.held.unblock(&topic, held);
        self.has_readable |= was_stopped;
        if was_stopped && held == BlockReason::Refused {
            let refused = |lane: &Lane| lane.topic == topic && lane.held == BlockReason::Refused;
            for (key, lane) in self.lanes.iter_mut().filter(|(_, lane)| refused(lane)) {
                if let State::Waiting(at) = lane.state {
                    self.waiting.remove(&(at, *key));
                    lane.state = State::Due;
                }
            }
        }
    }
}

/// Replaces a reason where many are remembered.
fn hash(reason: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    reason.hash(&mut hasher);
    hasher.finish()
}
