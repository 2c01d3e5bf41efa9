//! Orders: what customers want. Written by the shop's front, keyed by order.

use serde::{Deserialize, Serialize};

/// A customer placed an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The order, unique in the shop.
    pub order_id: String,
    /// Who placed it.
    pub customer_id: String,
    /// What was ordered; at least one line.
    pub lines: Vec<OrderLine>,
    /// What the customer pays, in cents.
    pub total_cents: u64,
    /// When it was placed, RFC 3339.
    pub placed_at: String,
}

/// One article of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// What.
    pub article: String,
    /// How many; at least one.
    pub quantity: u32,
    /// Price of one piece, in cents.
    pub price_cents: u64,
}

/// A customer cancelled an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: String,
    /// Why, for people.
    pub reason: String,
}

event_type!(OrderPlaced: "shop.order-placed.v1" on "shop.orders" by order_id);
event_type!(OrderCancelled: "shop.order-cancelled.v1" on "shop.orders" by order_id);
