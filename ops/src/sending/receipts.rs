//! Waits for receipts.

use evenkeel::publisher::{PendingReceipt, PublishError, Receipt};

/// The receipt when it arrives. Without one, the future never completes, for use in `select!`.
/// Cancel-safe: a receipt that was not ready is still pending.
///
/// # Errors
/// The error of the receipt: the record is not on the log, or, with
/// [`PublishError::Unknown`], it may be.
pub async fn ready_or_never(receipt: Option<&mut PendingReceipt>) -> Result<Receipt, PublishError> {
    match receipt {
        Some(receipt) => receipt.await,
        None => std::future::pending().await,
    }
}
