//! The errors of an outbox.
//!
//! Owns the errors of all stores. Knows no statement; a store's own error is kept as the source,
//! for callers that decide by its type.

use crate::publisher::PublishError;

/// The errors of an outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The event does not follow its schema or cannot be serialised. Nothing was written.
    #[error(transparent)]
    Event(PublishError),
    /// The store failed, or is not reachable now. In a PostgreSQL transaction: roll back and repeat
    /// the whole transaction.
    #[error("the outbox cannot {doing}: {source}")]
    Store {
        /// The failed operation.
        doing: &'static str,
        /// The store's error.
        #[source]
        source: sqlx::Error,
    },
    /// The store has a newer version, or is no outbox of evenkeel.
    #[error("the outbox {reason}")]
    Foreign {
        /// The owner or version, and the remedy.
        reason: String,
    },
    /// The store did not answer in time.
    #[error("the outbox cannot {doing}: no answer within {seconds} s")]
    NoAnswer {
        /// The failed operation.
        doing: &'static str,
        /// The time limit in seconds.
        seconds: u64,
    },
    /// An invalid setting or address: which one, and the remedy.
    #[error("{0}")]
    Setting(String),
    /// The producer is unusable; the process should stop and be restarted. Nothing is lost: events
    /// without an acknowledgement are still in the outbox.
    #[error("the relay cannot continue: {0}")]
    Producer(PublishError),
}

impl OutboxError {
    /// For `map_err`: builds the error of the operation `doing`.
    pub(crate) fn during(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Store { doing, source }
    }
}
