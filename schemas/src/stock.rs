//! Stock: what is there, and what is set aside for orders. Deliveries are keyed by article, all else by order.

use serde::{Deserialize, Serialize};

/// A delivery of an article arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReceived {
    /// What arrived.
    pub article: String,
    /// How many; at least one.
    pub quantity: u32,
    /// The supplier's delivery it came with.
    pub delivery_id: String,
}

/// Every line of an order is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReserved {
    /// The order.
    pub order_id: String,
    /// What is set aside.
    pub lines: Vec<ReservedLine>,
}

/// One article that is set aside for an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedLine {
    /// What.
    pub article: String,
    /// How many; at least one.
    pub quantity: u32,
}

/// An order cannot be served; nothing is set aside for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockRejected {
    /// The order.
    pub order_id: String,
    /// The article that is short.
    pub article: String,
    /// Why, for people.
    pub reason: String,
}

/// What was set aside for an order is free again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StockReleased {
    /// The order.
    pub order_id: String,
    /// What is free again.
    pub lines: Vec<ReservedLine>,
    /// Why, for people.
    pub reason: String,
}

event_type!(StockReceived: "shop.stock-received.v1" on "shop.deliveries" by article);
event_type!(StockReserved: "shop.stock-reserved.v1" on "shop.stock" by order_id);
event_type!(StockRejected: "shop.stock-rejected.v1" on "shop.stock" by order_id);
event_type!(StockReleased: "shop.stock-released.v1" on "shop.stock" by order_id);
