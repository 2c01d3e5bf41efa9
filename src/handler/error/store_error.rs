//! Maps an error of the inbox to a handler error.

use crate::handler::HandlerError;
use crate::inbox::InboxError;

/// Maps an error of the inbox to a handler error. An unusable store is an outage: the events wait
/// for it and none is dead-lettered. A handler's misuse of its transaction is the handler's failure
/// and counts as an attempt; so does a claim that expired. Stored events that cannot be read would
/// be unreadable in every attempt. A collision with another transaction is handled again at once
/// and never reaches the consumer, except as an outage after too many of them.
pub(in crate::handler) fn store_error(error: InboxError) -> HandlerError {
    match error {
        InboxError::Other(_) | InboxError::Transaction { .. } | InboxError::Lost { .. } => {
            HandlerError::transient(error)
        }
        InboxError::Replies(_) => HandlerError::permanent(error),
        // Detected at completion: the next claim reports it.
        InboxError::TryAgain(_) | InboxError::Reused => {
            HandlerError::outage(error).dependency("inbox").collided()
        }
        error => HandlerError::outage(error).dependency("inbox"),
    }
}
