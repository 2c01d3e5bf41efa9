//! Maps PostgreSQL's error codes to inbox errors, with a remedy.
//!
//! Codes: PostgreSQL's documentation, appendix A. The inbox's own statements are the same for every
//! delivery, so the server causes their failures, not the event: the events wait. The few
//! exceptions are commits that fail because of a handler's writes.
//!
//! A code that is not listed counts as unavailable, so that an unknown fault of the server stops
//! the group instead of emptying its topic into the dead letters.

use crate::failure::causes;
use crate::failure::panics::caught;
use crate::inbox::InboxError;
use crate::inbox::group_commit::Cause;
use crate::inbox::shared::error::{Advice, Failure};
use crate::postgres::is_outdated_plan;
use sqlx::postgres::PgDatabaseError;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The error of a transaction that ended before its time.
pub(super) fn ended_by_hand(cause: impl fmt::Display) -> InboxError {
    InboxError::Transaction {
        reason: format!(
            "the handler ended it before its completion ({cause}): leave COMMIT and ROLLBACK to \
             evenkeel; the event is handled again"
        ),
    }
}

/// The error of a handler that misused its transaction, if `error` shows that. If the transaction
/// `is_shared` and the handler of an earlier turn may be the cause, its deliveries are claimed
/// again, each alone.
pub(super) fn misuse(error: &sqlx::Error, is_shared: bool) -> Option<InboxError> {
    match code(error)?.as_str() {
        // The savepoint or the cursor does not exist; no transaction is open.
        "3B001" | "25P01" | "34000" => Some(ended_by_hand(error)),
        "25P02" => Some(InboxError::Transaction {
            reason: "one of the handler's statements failed, which aborts the transaction, but \
                     the handler returned success: return the error, or run statements that may \
                     fail under a savepoint (`Connection::begin`)"
                .to_owned(),
        }),
        // A limit of the server closed the connection. Every attempt of a handler that is too slow
        // ends like that: it is no fault of the server.
        "25P03" => Some(exceeded(error)),
        "25P04" => Some(match is_shared {
            // All turns together took too long.
            true => InboxError::TryAgain(exceeded(error).into()),
            false => exceeded(error),
        }),
        _ => None,
    }
}

/// The error of a transaction that the server ended while a handler had it.
fn exceeded(error: &sqlx::Error) -> InboxError {
    InboxError::Transaction {
        reason: format!(
            "the server ended it while the handler had it ({error}): await nothing but the store \
             between its statements, or raise the server's idle_in_transaction_session_timeout or \
             transaction_timeout for this role"
        ),
    }
}

/// Maps `error`, which occurred in the store `name` during `doing`, to an inbox error.
pub(super) fn failed(name: &str, doing: &'static str, error: sqlx::Error) -> InboxError {
    Failure::of(name, doing, &advice(&error), error)
}

/// The server did not answer.
pub(super) fn no_answer(name: &str, doing: &'static str, waited: Duration) -> InboxError {
    Failure::unavailable(format!(
        "{doing} on {name}: no answer within {waited:?}; check that the server runs and can be \
         reached from here"
    ))
}

/// Classes of codes that a handler's writes can cause when deferred constraints and triggers are
/// checked: data, constraints, views' checks, triggers, functions, limits of a row.
const OF_THE_EVENT: [&str; 10] = ["09", "22", "23", "27", "2F", "38", "39", "44", "54", "P0"];

/// For an error that the data of the delivery cause.
const REFUSED: Advice = Advice::Refused("PostgreSQL refused it");

/// For an error that is known neither to be caused by the event nor to need an operator.
const FAILED: Advice = Advice::Wait("PostgreSQL failed");

/// What to do about an error, by its code, or by its class (the first two characters).
fn advice(error: &sqlx::Error) -> Advice {
    use sqlx::Error::{Io, PoolClosed, PoolTimedOut, Protocol, Tls, WorkerCrashed};
    match error {
        PoolTimedOut => {
            return Advice::Wait(
                "no connection in time; check that the server runs and that its max_connections \
                 is enough for all instances",
            );
        }
        Io(_) | PoolClosed | Protocol(_) | WorkerCrashed => {
            return Advice::Wait("the connection broke; check that the server runs");
        }
        sqlx::Error::Encode(_) | sqlx::Error::Configuration(_) => return REFUSED,
        Tls(_) => {
            return Advice::Mend(
                "TLS failed; check sslmode, and sslrootcert, which names the trusted certificate",
            );
        }
        _ => {}
    }
    let Some(code) = code(error) else {
        return FAILED;
    };
    match code.as_str() {
        "23505" if violates(error, "evenkeel_outbox_pkey") => Advice::Mend(
            "the outbox's sequence is behind its rows, as after a failover by logical \
             replication; start the service again: the error then names the statement that \
             repairs it",
        ),
        "53100" => Advice::Mend("the server's disk is full; free some space"),
        "42501" => Advice::Mend("the user lacks a permission; grant it the rights on the tables"),
        "42P01" | "42703" => Advice::Mend(
            "a table of evenkeel is missing or has another version; run `evenkeel store migrate \
             --execute`",
        ),
        "25006" => Advice::Mend("the server is a replica or read-only; connect to the primary"),
        "28000" | "28P01" | "3D000" => {
            Advice::Mend("the server refuses this user or database; check the store's URL")
        }
        "40001" | "40P01" => Advice::TryAgain("it collided with another transaction"),
        "57014" => Advice::Wait(
            "a statement was cancelled, by an operator or because it took longer than the role's \
             statement_timeout; find out what it waited for, or raise that limit",
        ),
        "55P03" => Advice::Wait(
            "another transaction holds a lock; find it with `SELECT * FROM pg_stat_activity WHERE \
             wait_event_type = 'Lock'`",
        ),
        "XX001" | "XX002" => Advice::Mend(
            "the server reports damaged data or a damaged index; check its log, then run \
             `REINDEX` or restore a backup",
        ),
        "26000" | "42P05" => Advice::Mend(
            "the server does not know a prepared statement; a pooler assigns server connections \
             per transaction: add `pgbouncer=true` to the parameters of the store's URL, or let \
             it pool sessions",
        ),
        code => match &code[..code.len().min(2)] {
            "08" | "57" | "58" => Advice::Wait("the server is shutting down or starting"),
            "53" => Advice::Wait("the server is out of connections, memory or locks"),
            class if OF_THE_EVENT.contains(&class) => REFUSED,
            _ => FAILED,
        },
    }
}

/// How another transaction was in the way, if `error` or an error it wraps shows that. An
/// unavailable lock counts only if the wait for it was short.
pub(super) fn cause(error: &(dyn Error + 'static), has_short_timeout: bool) -> Option<Cause> {
    let first = || causes(error).find_map(|error| code(error.downcast_ref()?));
    // The chain of errors runs the service's own code.
    let code = caught("the error's own source", first).ok().flatten()?;
    match code.as_str() {
        "40P01" => Some(Cause::Deadlock),
        "40001" => Some(Cause::Serialization),
        "55P03" if has_short_timeout => Some(Cause::LockWait),
        _ => None,
    }
}

/// Whether the server refused a write because of this constraint.
fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    let error = error.as_database_error();
    error.and_then(|error| error.constraint()) == Some(constraint)
}

/// Whether `error`, or an error it wraps, shows that a prepared statement is outdated.
pub(super) fn has_outdated_plan(error: &(dyn Error + 'static)) -> bool {
    let is_outdated = |error: &(dyn Error + 'static)| {
        let error = error.downcast_ref::<sqlx::Error>()?.as_database_error()?;
        error
            .try_downcast_ref::<PgDatabaseError>()
            .map(is_outdated_plan)
    };
    // The chain of errors runs the service's own code.
    let first = || causes(error).find_map(is_outdated);
    matches!(caught("the error's own source", first), Ok(Some(true)))
}

/// The SQLSTATE of an error, if the server returned it.
fn code(error: &sqlx::Error) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    Some(code.into_owned())
}
