//! Waiting for receipts.

use evenkeel::publisher::{PendingReceipt, PublishError, Receipt};

/// The receipt when it comes; for none, a wait without end, which a select gives up.
pub(crate) async fn ready_or_never(
    receipt: Option<&mut PendingReceipt>,
) -> Result<Receipt, PublishError> {
    match receipt {
        Some(receipt) => receipt.await,
        None => std::future::pending().await,
    }
}
