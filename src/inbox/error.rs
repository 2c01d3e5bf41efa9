//! The errors of an idempotency store.

/// The errors of an idempotency store. Each variant documents how the consumer treats the delivery.
///
/// An outage counts no attempt and is reported to the breaker of the dependency `inbox`. Most other
/// kinds are a failed attempt of the one delivery. A store of your own chooses the variant by that
/// consequence, not by the wording of the driver's error.
///
/// # Examples
/// ```
/// use evenkeel::inbox::InboxError;
///
/// /// Whether it helps to try the same call again later.
/// fn may_pass(error: &InboxError) -> bool {
///     matches!(error, InboxError::Unavailable(_) | InboxError::TryAgain(_))
/// }
/// assert!(may_pass(&InboxError::Unavailable("the database is starting".into())));
/// assert!(!may_pass(&InboxError::Reused));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The store is busy, locked or not reachable. An outage: the delivery is retried and no
    /// attempt is counted. The caller may repeat any call, including a completion, whose delivery
    /// is then either completed or fresh. Check the store; its error names the cause.
    #[error("the inbox store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store kept nothing of the delivery, because of another transaction or another delivery
    /// in the same one. The delivery is claimed again at once, and no attempt is counted, up to ten
    /// times; after that it is an outage.
    #[error("the inbox store rolled the delivery back, which is claimed again: {0}")]
    TryAgain(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full, the file cannot be written, or the server refuses the user or the write.
    /// Also an outage, but one that does not pass by itself: an operator must fix the cause named
    /// in the error. The deliveries wait.
    #[error("the inbox store cannot be written: {0}")]
    NotWritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store belongs to another group, has a newer version, or is no store of evenkeel. It
    /// occurs while a store is opened, which then changed nothing. Do not retry: name another
    /// store, or run the release that wrote this one.
    #[error("the store {path} {reason}")]
    Foreign {
        /// Which store.
        path: String,
        /// The actual owner or version, and the remedy.
        reason: String,
    },
    /// The handler kept, committed or rolled back the transaction of its claim, or ignored a failed
    /// statement: a mistake in the handler, which counts as an attempt. Nothing of the delivery was
    /// committed.
    #[error("a handler misused the inbox transaction: {reason}")]
    Transaction {
        /// The mistake and the remedy.
        reason: String,
    },
    /// The published events of a delivery cannot be read back: another program wrote to the store.
    /// The record is dead-lettered, because its effect exists and its events cannot be published.
    /// Repair the row, or delete it to have the event handled again.
    #[error("the stored events of the delivery cannot be read from the inbox store: {0}")]
    Replies(#[source] serde_json::Error),
    /// The claim expired before its completion, and another owner took the delivery. Only stores
    /// with leases return it. It counts as an attempt: the retry finds a duplicate, or handles the
    /// record again if the other owner failed. The effect may exist twice.
    #[error("the claim was lost: {reason}")]
    Lost {
        /// The cause and the remedy.
        reason: String,
    },
    /// The id belongs to another event: it was completed with other content. Nothing is claimed.
    /// The producer gave two events one source and id, and [`ReusedIds`](crate::handler::ReusedIds)
    /// decides what becomes of the second.
    #[error("an event with this source and id, but other content, was completed before")]
    Reused,
    /// The store's address or a setting is invalid: which one, and the remedy. Occurs before
    /// anything was opened; do not retry.
    #[error("{0}")]
    Setting(String),
    /// Any other error. It counts as an attempt, because a write of the handler may have caused it,
    /// for example by a constraint that the store checks at the commit.
    #[error("the inbox store failed: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
