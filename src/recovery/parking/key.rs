//! A waiting key, and what holds it.

use super::super::parked::RetryState;
use std::collections::VecDeque;

/// The state of a waiting key. It leaves the set when [`Key::is_done`].
#[derive(Default)]
pub(super) struct Key {
    /// None for a record without a key, which waits for itself alone.
    pub(super) name: Option<Box<[u8]>>,
    /// Offsets of its parked records, in the order in which they are handled.
    pub(super) queue: VecDeque<i64>,
    /// The retry state of the first of them.
    pub(super) wait: RetryState,
    /// The rounds of the state that this member set itself. Its note comes from the log later, and
    /// an operator may have shortened the wait meanwhile.
    pub(super) own_rounds: Option<u32>,
    /// The offset of the note with this state.
    pub(super) note: Option<i64>,
    /// Source offsets of records that are being written.
    pub(super) writing: Vec<i64>,
    /// Source offsets of dead letters whose note is being written.
    pub(super) holds_in_writing: Vec<i64>,
    /// Source offsets whose key was released before the note was seen: the note holds nothing.
    pub(super) released: Vec<i64>,
    /// Holds that were seen on the log and are not settled.
    pub(super) holds: Vec<Hold>,
    /// Replays among its records, by source offset and offset, that were seen before the note of
    /// their dead letter.
    pub(super) early_replays: Vec<(i64, i64)>,
    /// How many of the queue are handed out.
    pub(super) handed_out: usize,
    /// The earliest time of the next try for a due record that could not be fetched.
    pub(super) fetch_again_ms: i64,
    /// The time under which it is in `due`, if it is.
    pub(super) scheduled: Option<i64>,
}

/// The hold of a key after a dead letter. A key has several only after a restart, if the settlement
/// of the older ones was not committed.
#[derive(Clone, Copy)]
pub(super) struct Hold {
    /// The offset of the note.
    pub(super) note: i64,
    /// The source offset of the dead letter.
    pub(super) source_offset: i64,
    /// The offset of the replay that takes its place.
    pub(super) replay: Option<i64>,
}

impl Key {
    /// Whether it waits for the replay of a dead letter.
    pub(super) fn is_held(&self) -> bool {
        !self.holds_in_writing.is_empty() || self.holds.iter().any(|hold| hold.replay.is_none())
    }

    /// Whether nothing of it waits, is being written, or is announced on the log.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_empty()
            && self.writing.is_empty()
            && self.holds_in_writing.is_empty()
            && self.released.is_empty()
            && self.holds.is_empty()
    }
}
