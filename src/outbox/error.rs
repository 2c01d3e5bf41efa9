//! What can go wrong with an outbox.
//!
//! Owns the errors of all stores. Knows no statement; a store's own error is kept as the source, for those who judge by its
//! type.

use crate::inbox::InboxError;
use crate::publisher::PublishError;

/// What can go wrong with an outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The event does not follow its schema or cannot be serialised; nothing was written.
    #[error(transparent)]
    Event(PublishError),
    /// The store failed, or is not reachable now. In a transaction of PostgreSQL: roll back, and try the whole again.
    #[error("the outbox cannot {doing}: {source}")]
    Store {
        /// What was tried.
        doing: &'static str,
        /// What the store said.
        #[source]
        source: sqlx::Error,
    },
    /// The store is of a newer version, or none of ours.
    #[error("the outbox {reason}")]
    Foreign {
        /// Whose it is and what to do.
        reason: String,
    },
    /// The store did not answer in time.
    #[error("the outbox cannot {doing}: no answer within {seconds} s")]
    NoAnswer {
        /// What was tried.
        doing: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// A setting that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The producer is unusable; the process should end and start again. Nothing is lost: what was not acknowledged is
    /// still in the outbox.
    #[error("the relay cannot go on: {0}")]
    Producer(PublishError),
}

impl OutboxError {
    /// For `map_err`: what was tried when the store failed.
    pub(crate) fn during(doing: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Store { doing, source }
    }

    /// As an error of the inbox in the same store: where the store failed, what `failed` makes of it.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn into_inbox(self, failed: impl FnOnce(sqlx::Error) -> InboxError) -> InboxError {
        match self {
            Self::Store { source, .. } => failed(source),
            silent @ Self::NoAnswer { .. } => InboxError::Unavailable(silent.into()),
            other => InboxError::Other(other.into()),
        }
    }
}
