//! Maps Redis's errors to inbox errors, with a remedy.
//!
//! The scripts are the same for every delivery, so the event never causes a refusal by Redis: an
//! unknown error counts as unavailable, and the events wait.

use crate::inbox::InboxError;
use crate::inbox::shared::error::{Advice, Failure};
use redis::{ErrorKind, RedisError, ServerErrorKind};
use std::time::Duration;

/// Maps `error`, which occurred in the store at `address` during `doing`, to an inbox error.
pub(super) fn failed(address: &str, doing: &'static str, error: RedisError) -> InboxError {
    let store = format_args!("Redis at {address}");
    Failure::of(store, doing, &advice(&error), error)
}

/// Redis did not answer in time.
pub(super) fn no_answer(address: &str, doing: &'static str, waited: Duration) -> InboxError {
    Failure::unavailable(format!(
        "{doing} on Redis at {address}: no answer within {waited:?}; check that it runs and is not \
         overloaded (SLOWLOG GET)"
    ))
}

/// Another owner holds the delivery for longer than the wait limit.
pub(super) fn held(address: &str, waited: Duration) -> InboxError {
    Failure::unavailable(format!(
        "claim on Redis at {address}: another instance has been handling this delivery for more \
         than {waited:?}; find the stuck handler"
    ))
}

/// Whether the server refused because it is a replica. Before Redis 7 an error within a script has
/// another code, and this one in its text.
pub(super) fn is_of_replica(error: &RedisError) -> bool {
    let is_in_script = |text: &str| text.contains("-READONLY ");
    matches!(error.code(), Some("READONLY" | "MASTERDOWN"))
        || error.detail().is_some_and(is_in_script)
}

/// What to do about an error: by the kind that the client found, then by the code with which the
/// server's answer begins.
fn advice(error: &RedisError) -> Advice {
    match error.kind() {
        ErrorKind::Io => {
            return Advice::Wait("no connection; check that it runs and can be reached from here");
        }
        ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm) => {
            return Advice::Mend(
                "the user or password is wrong, or the user lacks a permission; name a user in \
                 the URL that may run scripts and write the prefix's keys",
            );
        }
        ErrorKind::Server(
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot,
        ) => {
            return Advice::Mend(
                "it is a node of a Redis Cluster, which is not supported; name a single primary",
            );
        }
        _ => {}
    }
    match error.code() {
        Some("LOADING") => Advice::Wait("it is starting and still loads its data"),
        Some("BUSY") => {
            Advice::Wait("it runs a long script of another client; SCRIPT KILL ends it")
        }
        Some("MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN") => Advice::Wait("a failover is under way"),
        Some("NOREPLICAS") => {
            Advice::Wait("too few of its replicas are connected (min-replicas-to-write)")
        }
        Some("READONLY") => {
            Advice::Mend("it is a replica; name the primary, or wait for the failover to end")
        }
        Some("OOM") => Advice::Mend(
            "its memory is used up (maxmemory); give it more, or shorten the retention",
        ),
        Some("MISCONF") => Advice::Mend(
            "it cannot save its data to disk and rejects writes; check its log and free some space",
        ),
        Some("NOAUTH" | "WRONGPASS") => {
            Advice::Mend("it requires a password; set the right one in the URL")
        }
        _ => Advice::Wait("it refused the request"),
    }
}
