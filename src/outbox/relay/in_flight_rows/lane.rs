//! A key and its rows in memory.
//!
//! Owns what a key waits for. Knows no other key.

use super::super::super::store::{RowId, StoredRow};
use super::super::blocked_keys::BlockReason;
use std::collections::VecDeque;
use tokio::time::Instant;

/// The rows of a key in memory: the first ones that the store has of it. It exists while it has
/// rows in memory, being sent, undeleted or waiting for a retry; a key without any is unknown.
pub(super) struct Lane {
    pub(super) slot: i16,
    pub(super) topic: String,
    pub(super) queue: VecDeque<StoredRow>,
    pub(super) state: State,
    /// Published rows that the store still has: while there are any, the key is not read again.
    pub(super) undeleted: usize,
    /// Failures in a row, for the backoff.
    pub(super) failures: u32,
    /// Why it is held, if it is.
    pub(super) held: BlockReason,
    /// The row that held it last, and the hash of the reason.
    pub(super) held_by: Option<(RowId, u64)>,
    /// The slot was lost while a row was being sent.
    pub(super) is_lost: bool,
}

/// What a key waits for. `Open` becomes `Sending` when its next row is taken; the outcome leads
/// back to `Open`, or by `Waiting` and `Due` to a new read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum State {
    /// Its next row can be sent, if there is one.
    Open,
    /// A row is being sent.
    Sending { row: RowId, bytes: usize },
    /// A row failed; read the key again at this time.
    Waiting(Instant),
    /// Read the key again now.
    Due,
}

impl Lane {
    /// A key that is read for the first time.
    pub(super) fn of(row: &StoredRow) -> Self {
        Self {
            slot: row.slot,
            topic: row.topic.clone(),
            queue: VecDeque::new(),
            state: State::Due,
            undeleted: 0,
            failures: 0,
            held: BlockReason::No,
            held_by: None,
            is_lost: false,
        }
    }

    /// Whether the store has rows of it that are not in memory, and a read returns its first ones.
    pub(super) fn is_to_be_read(&self) -> bool {
        self.state == State::Due && self.undeleted == 0
    }

    /// Whether nothing of the key is in memory, on its way or undeleted.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Open && self.queue.is_empty() && self.undeleted == 0
    }
}
