//! Receipt of a delivery's event.

use crate::output::Columns;
use evenkeel::event::Event;
use evenkeel::publisher::Receipt;
use serde::Serialize;
use shop_schemas::StockReceived;

/// An acknowledged delivery.
#[derive(Debug, Serialize)]
pub(super) struct DeliveryReceipt {
    article: String,
    quantity: u32,
    delivery_id: String,
    event_id: String,
    #[serde(flatten)]
    receipt: Receipt,
}

impl DeliveryReceipt {
    pub(super) fn new(event: Event<StockReceived>, receipt: Receipt) -> Self {
        Self {
            article: event.data.article,
            quantity: event.data.quantity,
            delivery_id: event.data.delivery_id,
            event_id: event.attributes.id,
            receipt,
        }
    }
}

impl DeliveryReceipt {
    /// A sentence about the published event.
    pub(super) fn done(&self) -> String {
        format!("the event {} was published", self.event_id)
    }
}

impl Columns for DeliveryReceipt {
    const NAMES: &'static [&'static str] = &[
        "article",
        "quantity",
        "delivery_id",
        "event_id",
        "topic",
        "partition",
        "offset",
    ];

    fn texts(&self) -> Vec<String> {
        vec![
            self.article.clone(),
            self.quantity.to_string(),
            self.delivery_id.clone(),
            self.event_id.clone(),
            self.receipt.topic.clone(),
            self.receipt.partition.to_string(),
            self.receipt.offset.to_string(),
        ]
    }
}
