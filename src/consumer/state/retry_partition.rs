//! The retry partition of an assigned partition. Its reader and the workers share it.
//!
//! It makes no decision; [`ParkedSet`] does. It lives as long as the partition's assignment.
//!
//! # The gate
//!
//! A record must not overtake parked records of its key, and which keys wait is only known after
//! the retry partition was read up to its end at the assignment. Until then the gate is closed and
//! the source partition is gated. The gate moves from `CLOSED` to `OPEN` or `WITHOUT`, and from
//! `WITHOUT` to `APPEARED` if the retry topic is created meanwhile. Then the partition is restarted
//! under a new epoch, with a new value of this type: a topic that appears may have parked records
//! of another member.

use crate::consumer::state::commit_metadata::Log;
use crate::consumer::state::offset_tracker::{Epoch, PartitionProgress};
use crate::recovery::parked::RetryState;
use crate::recovery::parking::{ParkedSet, Ticket};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The waiting keys are not known yet. No record of the partition may be handled.
pub(crate) const CLOSED: u8 = 0;
/// The parked set is complete.
pub(crate) const OPEN: u8 = 1;
/// The retry topic does not exist: no key waits, and no record can be parked.
pub(crate) const WITHOUT: u8 = 2;
/// The retry topic exists now, but did not when the partition was opened.
pub(crate) const APPEARED: u8 = 3;

/// The retry partition of an assigned partition.
pub(crate) struct RetryPartition {
    pub(crate) topic: Arc<str>,
    /// The epoch under which its own offsets are committed.
    pub(crate) epoch: Epoch,
    /// The parked set. Every thread of the consumer locks it, briefly.
    state: Mutex<ParkedSet>,
    /// The number of waiting keys, for checks on the hot path that take no lock.
    keys: AtomicUsize,
    /// One of `CLOSED`, `OPEN`, `WITHOUT` and `APPEARED`.
    gate: AtomicU8,
    /// The log of the retry partition, as far as it is known.
    log: Mutex<Log>,
    /// Whether the log lost the group's committed offset, so that it is read from its beginning.
    is_position_lost: AtomicBool,
    /// Whether the first entry must still prove that the log was not truncated since the commit.
    must_check_first_entry: AtomicBool,
}

impl RetryPartition {
    pub(crate) fn new(topic: Arc<str>, epoch: Epoch) -> Self {
        Self {
            topic,
            epoch,
            // The set is complete only after the end of the log is known.
            state: Mutex::new(ParkedSet::new(0, i64::MAX, &[], 0, false)),
            keys: AtomicUsize::new(0),
            gate: AtomicU8::new(CLOSED),
            log: Mutex::default(),
            is_position_lost: AtomicBool::new(false),
            must_check_first_entry: AtomicBool::new(false),
        }
    }

    /// Sets the log that is read.
    pub(crate) fn set_log(&self, log: Log) {
        self.must_check_first_entry
            .store(log.leader_epoch.is_some(), Relaxed);
        *self.log() = log;
    }

    /// Checks the leader epoch of the first entry. If it is later than that of the committed
    /// offset, the log may have been truncated and unread entries may precede the entry: returns
    /// the leader epoch of the committed offset. Later calls return none.
    pub(crate) fn check_first_entry(&self, leader_epoch: Option<i32>) -> Option<i32> {
        let known = self.log().leader_epoch;
        let must_check = self.must_check_first_entry.swap(false, Relaxed);
        known.filter(|_| must_check && leader_epoch > known)
    }

    /// Marks the committed offset as lost: the log is read from its beginning.
    pub(crate) fn set_position_lost(&self) {
        self.is_position_lost.store(true, Relaxed);
    }

    /// Whether the committed offset was lost.
    pub(crate) fn is_position_lost(&self) -> bool {
        self.is_position_lost.load(Relaxed)
    }

    /// Updates the leader epoch from received entries.
    pub(crate) fn observe_leader_epoch(&self, leader_epoch: Option<i32>) {
        let mut log = self.log();
        log.leader_epoch = log.leader_epoch.max(leader_epoch);
    }

    /// Locks the identity of the log.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the waiting keys are known, so that records of the partition may be handled.
    pub(crate) fn is_open(&self) -> bool {
        // Acquire: a thread that sees the gate open also sees the waiting keys.
        self.gate.load(Acquire) != CLOSED
    }

    /// Whether records can be parked there.
    pub(crate) fn can_park(&self) -> bool {
        self.gate.load(Acquire) == OPEN
    }

    /// Whether the partition must be opened again, because its retry topic was created meanwhile.
    pub(crate) fn has_appeared(&self) -> bool {
        self.gate.load(Acquire) == APPEARED
    }

    /// Moves the gate. Release: it publishes the parked set.
    pub(crate) fn set_gate(&self, gate: u8) {
        self.gate.store(gate, Release);
    }

    /// Whether no key waits. Takes no lock.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.load(Relaxed) == 0
    }

    /// Whether a record has to be parked behind others of its key. If so, it counts as being
    /// written: the caller writes it or cancels the announcement. Keyless records never join.
    pub(crate) fn begin_if_waiting(&self, name: Option<&[u8]>, source_offset: i64) -> bool {
        !self.is_empty()
            && name.is_some_and(|name| {
                self.change(|state| state.begin_if_waiting(name, source_offset))
            })
    }

    /// Whether every record that was due by then is settled or waits for a later time.
    pub(crate) fn is_done_with(&self, due_by_ms: i64) -> bool {
        self.is_empty() || self.state().is_done_with(due_by_ms)
    }

    /// Starts a parked record. Returns its wait so far, or none if it is not its turn.
    pub(crate) fn start(&self, ticket: Ticket) -> Option<RetryState> {
        self.state().start(ticket)
    }

    /// The numbers of waiting keys and waiting records.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let state = self.state();
        (state.keys(), state.records())
    }

    /// The group's progress in the retry partition. None while it is unknown.
    pub(crate) fn position(&self) -> Option<PartitionProgress> {
        let position = self.state().position()?;
        Some(PartitionProgress {
            epoch: self.epoch,
            watermark: Some(position.watermark),
            next: Some(position.next),
            unsettled: position.unsettled,
            log: *self.log(),
            is_whole: position.is_whole,
            // The start of reading follows the log, even if that was recreated.
            may_step_back: true,
            oldest_received_at: None,
        })
    }

    /// Changes the parked set, and updates the number of waiting keys.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut ParkedSet) -> T) -> T {
        let mut state = self.state();
        let changed = change(&mut state);
        self.keys.store(state.keys(), Relaxed);
        changed
    }

    /// Locks the parked set. Changes that may add or remove a key must go through
    /// [`RetryPartition::change`], which updates the count that the hot path reads.
    pub(crate) fn state(&self) -> MutexGuard<'_, ParkedSet> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
