//! The errors of an outbox.
//!
//! Owns the errors of all stores. Knows no statement; a store's own error is kept as the source,
//! for callers that decide by its type.

use crate::publisher::PublishError;

/// The errors of an outbox.
///
/// An error of `publish` concerns the caller's transaction: roll it back, and the event does not
/// exist. A relay returns only [`OutboxError::Setting`] and [`OutboxError::Producer`]; it waits for
/// a store that fails.
///
/// # Examples
/// ```
/// use evenkeel::outbox::OutboxError;
///
/// /// Whether it helps to repeat the whole transaction.
/// fn may_repeat(error: &OutboxError) -> bool {
///     matches!(error, OutboxError::Store { .. } | OutboxError::NoAnswer { .. })
/// }
/// assert!(!may_repeat(&OutboxError::Setting("lease is 0".to_owned())));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The event does not follow its schema or cannot be serialised. Nothing was written, and the
    /// transaction can continue. Do not retry: correct the event or its schema.
    #[error(transparent)]
    Event(PublishError),
    /// The store failed, or is not reachable now. In a PostgreSQL transaction: roll back and repeat
    /// the whole transaction. A deadlock (`40P01`) is such an error.
    #[error("the outbox cannot {doing}: {source}")]
    Store {
        /// The failed operation.
        doing: &'static str,
        /// The store's error.
        #[source]
        source: sqlx::Error,
    },
    /// The store has a newer version, has older tables than this process may upgrade, or is no
    /// outbox of evenkeel. Occurs while it is opened, which then changed nothing. Do not retry:
    /// upgrade the tables or this program, as the reason says.
    #[error("the outbox {reason}")]
    Foreign {
        /// The owner or version, and the remedy.
        reason: String,
    },
    /// The store did not answer in time. May be retried: the call is either done or not, and
    /// repeating it does no harm.
    #[error("the outbox cannot {doing}: no answer within {seconds} s")]
    NoAnswer {
        /// The failed operation.
        doing: &'static str,
        /// The time limit in seconds.
        seconds: u64,
    },
    /// An invalid setting or address: which one, and the remedy. Nothing was opened or published.
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
