//! Stock: deliveries of articles, and reservations for orders. Deliveries are keyed by article, all
//! other events by order.

use serde::{Deserialize, Serialize};

/// A delivery of an article arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// Name of the article.
    pub article: String,
    /// Quantity; at least one.
    pub quantity: u32,
    /// Id of the supplier's delivery.
    pub delivery_id: String,
}

/// All lines of an order are reserved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReserved {
    /// Id of the order.
    pub order_id: String,
    /// The reserved articles.
    pub lines: Vec<ReservedLine>,
}

/// A reserved quantity of an article.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedLine {
    /// Name of the article.
    pub article: String,
    /// Quantity; at least one.
    pub quantity: u32,
}

/// An order cannot be fulfilled; nothing is reserved for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRejected {
    /// Id of the order.
    pub order_id: String,
    /// The article that is not available.
    pub article: String,
    /// Reason, in words.
    pub reason: String,
}

/// The reservation of an order was released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReleased {
    /// Id of the order.
    pub order_id: String,
    /// The released articles.
    pub lines: Vec<ReservedLine>,
    /// Reason, in words.
    pub reason: String,
}

event_type!(StockReceived: "shop.stock-received.v1" on "shop.deliveries" by article);
event_type!(StockReserved: "shop.stock-reserved.v1" on "shop.stock" by order_id);
event_type!(StockRejected: "shop.stock-rejected.v1" on "shop.stock" by order_id);
event_type!(StockReleased: "shop.stock-released.v1" on "shop.stock" by order_id);
