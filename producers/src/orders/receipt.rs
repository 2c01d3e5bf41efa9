//! Receipt of an order's event.

use crate::output::Columns;
use evenkeel::publisher::Receipt;
use serde::Serialize;

/// An acknowledged event of an order.
#[derive(Debug, Serialize)]
pub(super) struct OrderReceipt {
    pub(super) order_id: String,
    pub(super) event_id: String,
    #[serde(flatten)]
    pub(super) receipt: Receipt,
}

impl OrderReceipt {
    /// A sentence about the published event.
    pub(super) fn done(&self) -> String {
        format!("the event {} was published", self.event_id)
    }
}

impl Columns for OrderReceipt {
    const NAMES: &'static [&'static str] =
        &["order_id", "event_id", "topic", "partition", "offset"];

    fn texts(&self) -> Vec<String> {
        vec![
            self.order_id.clone(),
            self.event_id.clone(),
            self.receipt.topic.clone(),
            self.receipt.partition.to_string(),
            self.receipt.offset.to_string(),
        ]
    }
}
