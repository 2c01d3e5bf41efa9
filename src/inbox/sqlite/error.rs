//! SQLite's result codes as inbox errors, with what to do.
//!
//! The inbox's own statements are the same for every delivery, so what fails one of them is the store's fault and not the event's:
//! the events wait. The exceptions are few: what a handler wrote can make its commit fail.

use crate::inbox::InboxError;
use crate::inbox::failure::{Advice, Failure};
use std::fmt;

/// SQLite's primary result codes (the low byte of an extended one).
mod code {
    pub(super) const PERM: u32 = 3;
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const NOMEM: u32 = 7;
    pub(super) const READONLY: u32 = 8;
    pub(super) const IOERR: u32 = 10;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const TOOBIG: u32 = 18;
    pub(super) const CONSTRAINT: u32 = 19;
    pub(super) const MISMATCH: u32 = 20;
    pub(super) const NOTADB: u32 = 26;
}

/// Whether a savepoint was released that is not there: the transaction in which it was set has ended.
pub(super) fn is_missing_savepoint(error: &sqlx::Error) -> bool {
    // SQLite has no code of its own for it.
    let error = error.as_database_error();
    error.is_some_and(|error| error.message().starts_with("no such savepoint"))
}

/// The error for a transaction that ended before its time.
pub(super) fn ended_by_hand(cause: impl fmt::Display) -> InboxError {
    InboxError::Transaction {
        reason: format!(
            "the handler (or SQLite, for a full disk) ended it before its completion ({cause}): leave COMMIT and ROLLBACK \
             to evenkeel; the event is handled again"
        ),
    }
}

/// The inbox error for `error`, which happened to the store `path` during `doing`.
pub(super) fn failed(path: &str, doing: &'static str, error: sqlx::Error) -> InboxError {
    if primary_code(&error) == Some(code::NOTADB) {
        return InboxError::Foreign {
            path: path.to_owned(),
            reason: "is no SQLite database: name another file".to_owned(),
        };
    }
    Failure::of(path, doing, &advice(&error), error)
}

fn advice(error: &sqlx::Error) -> Advice {
    match error {
        sqlx::Error::Encode(_) => return Advice::Refused("it does not fit into a row"),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            return Advice::Wait("no connection to the file; it may be closing");
        }
        _ => {}
    }
    match primary_code(error) {
        Some(code::BUSY | code::LOCKED) => {
            Advice::Wait("another process holds the write lock; find it with `fuser FILE`")
        }
        Some(code::FULL) => Advice::Mend("the disk is full; free some space"),
        Some(code::READONLY | code::PERM) => Advice::Mend(
            "this user may not write to the file and its directory; fix the permissions",
        ),
        Some(code::IOERR) => Advice::Mend("the disk reports an error; look at the system's log"),
        Some(code::CANTOPEN) => Advice::Mend(
            "the file cannot be opened; see that its directory exists and that this user may create files in it (SQLite \
             keeps FILE-wal and FILE-shm beside it)",
        ),
        Some(code::CORRUPT) => Advice::Mend(
            "the file is damaged; look at it with `sqlite3 FILE 'PRAGMA integrity_check'` and put a sound copy in its place",
        ),
        Some(code::NOMEM) => Advice::Wait("there is no memory left"),
        // Constraints that a handler had deferred to the commit, and replies that no row takes.
        Some(code::TOOBIG | code::CONSTRAINT | code::MISMATCH) => {
            Advice::Refused("SQLite refused it")
        }
        _ => Advice::Wait("SQLite failed"),
    }
}

/// Whether another connection has the lock.
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}
