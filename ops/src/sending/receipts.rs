//! Waits for receipts.

use evenkeel::publisher::{PendingReceipt, PublishError, Receipt};

/// The receipt when it arrives. Without one, the future never completes, for use in `select!`.
/// Cancel-safe.
///
/// # Errors
/// The error of the receipt.
pub async fn ready_or_never(receipt: Option<&mut PendingReceipt>) -> Result<Receipt, PublishError> {
    match receipt {
        Some(receipt) => receipt.await,
        None => std::future::pending().await,
    }
}
