//! The errors of an idempotency store.

/// The errors of an idempotency store. Each variant documents how the consumer treats the delivery.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// The store is busy, locked or not reachable. An outage: the delivery is retried and no
    /// attempt is counted.
    #[error("the inbox store is not available: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store kept nothing of the delivery, because of another transaction or another delivery
    /// in the same one. The delivery is claimed again at once, and no attempt is counted.
    #[error("the inbox store rolled the delivery back, which is claimed again: {0}")]
    TryAgain(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full, or the file cannot be written. An operator must fix this; the deliveries
    /// wait.
    #[error("the inbox store cannot be written: {0}")]
    NotWritable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store belongs to another group, or has a newer version.
    #[error("the store {path} {reason}")]
    Foreign {
        /// Which store.
        path: String,
        /// The actual owner or version, and the remedy.
        reason: String,
    },
    /// The handler kept, committed or rolled back the transaction of its claim: a mistake in the
    /// handler, which counts as an attempt.
    #[error("a handler misused the inbox transaction: {reason}")]
    Transaction {
        /// The mistake and the remedy.
        reason: String,
    },
    /// The published events of a delivery cannot be read back: another program wrote to the store.
    #[error("the stored events of the delivery cannot be read from the inbox store: {0}")]
    Replies(#[source] serde_json::Error),
    /// The claim expired before its completion, and another owner took the delivery. The record is
    /// retried: it is then a duplicate, or is handled again if the other owner failed.
    #[error("the claim was lost: {reason}")]
    Lost {
        /// The cause and the remedy.
        reason: String,
    },
    /// The id belongs to another event: it was completed with other content. Nothing is claimed.
    #[error("an event with this source and id, but other content, was completed before")]
    Reused,
    /// The store's address or a setting is invalid: which one, and the remedy.
    #[error("{0}")]
    Setting(String),
    /// Any other error.
    #[error("the inbox store failed: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
