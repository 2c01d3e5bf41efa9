//! Maps SQLite's result codes to inbox errors, with a remedy.
//!
//! The inbox's own statements are the same for every delivery, so the store causes their failures,
//! not the event: the events wait. The few exceptions are commits that fail because of a handler's
//! writes.
//!
//! Result codes: <https://www.sqlite.org/rescode.html>. Only the primary code decides, because the
//! extended ones differ between releases of SQLite.

use crate::inbox::InboxError;
use crate::inbox::shared::error::{Advice, Failure};
use crate::sqlite::{code, primary_code};
use std::fmt;

/// Whether an error of an undo shows that the transaction has ended.
pub(super) fn is_end_of_transaction(error: &sqlx::Error) -> bool {
    // An undo deletes rows of the inbox, which violates no constraint: the commit of that statement
    // was refused, because it was in no transaction.
    if primary_code(error) == Some(code::CONSTRAINT) {
        return true;
    }
    // SQLite has no code of its own for a missing savepoint.
    let error = error.as_database_error();
    error.is_some_and(|error| error.message().starts_with("no such savepoint"))
}

/// The error of a transaction that ended before its time. If it `is_shared`, another handler may
/// have ended it, so its deliveries are claimed again, each alone.
pub(super) fn ended_by_hand(cause: impl fmt::Display, is_shared: bool) -> InboxError {
    let ended = InboxError::Transaction {
        reason: format!(
            "the handler (or SQLite, for a full disk) ended it before its completion ({cause}): \
             leave COMMIT and ROLLBACK to evenkeel; the event is handled again"
        ),
    };
    match is_shared {
        true => InboxError::TryAgain(ended.into()),
        false => ended,
    }
}

/// Maps `error`, which occurred in the store `path` during `doing`, to an inbox error. A file that
/// is no database is no failure of the store but the wrong file.
pub(super) fn failed(path: &str, doing: &'static str, error: sqlx::Error) -> InboxError {
    if primary_code(&error) == Some(code::NOTADB) {
        return InboxError::Foreign {
            path: path.to_owned(),
            reason: "is no SQLite database: name another file".to_owned(),
        };
    }
    Failure::of(path, doing, &advice(&error), error)
}

/// The error of a store whose file is not the one at its path any more: what is written to it
/// exists as long as the process runs.
pub(super) fn not_in_place(path: &str, doing: &'static str) -> InboxError {
    let advice = Advice::Mend(
        "the file or FILE-wal was deleted, moved or replaced while it was open, and what is \
         written to it would be lost; put it back, or stop the service and start it with the file \
         that it is to have",
    );
    let error = std::io::Error::other("the path leads to another file");
    Failure::of(path, doing, &advice, error)
}

/// What to do about an error. A code that is not listed counts as unavailable: the events wait, and
/// nothing is dead-lettered for a fault of the store.
fn advice(error: &sqlx::Error) -> Advice {
    match error {
        sqlx::Error::Encode(_) => return Advice::Refused("the data does not fit into a row"),
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            return Advice::Wait("no connection to the file; the store may be closing");
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
        Some(code::IOERR) => Advice::Mend("the disk reports an error; check the system's log"),
        Some(code::CANTOPEN) => Advice::Mend(
            "the file cannot be opened; check that its directory exists and that this user may \
             create files in it (SQLite keeps FILE-wal and FILE-shm beside it)",
        ),
        Some(code::CORRUPT) => Advice::Mend(
            "the file is damaged; check it with `sqlite3 FILE 'PRAGMA integrity_check'` and \
             restore a backup",
        ),
        Some(code::NOMEM) => Advice::Wait("the process is out of memory"),
        // Constraints that a handler deferred to the commit, and replies that are too large for a
        // row.
        Some(code::TOOBIG | code::CONSTRAINT | code::MISMATCH) => {
            Advice::Refused("SQLite refused it")
        }
        _ => Advice::Wait("SQLite failed"),
    }
}
