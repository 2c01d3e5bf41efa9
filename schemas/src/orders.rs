//! Orders of customers. Published by the shop's front end, keyed by order.

use serde::{Deserialize, Serialize};

/// The most lines of an order. The schemas of all events with lines reject more. A service that
/// writes lines into one statement rejects more too, because it can run without validation.
pub const LINES_MAX: usize = 1_000;

/// A customer placed an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// Id of the order, unique in the shop.
    pub order_id: String,
    /// Id of the customer who placed the order.
    pub customer_id: String,
    /// The ordered articles; at least one line, and at most [`LINES_MAX`].
    pub lines: Vec<OrderLine>,
    /// Total price, in cents.
    pub total_cents: u64,
    /// Time of the order, RFC 3339.
    pub placed_at: String,
}

/// One article of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    /// Name of the article.
    pub article: String,
    /// Quantity; at least one.
    pub quantity: u32,
    /// Price of one piece, in cents.
    pub price_cents: u64,
}

/// A customer cancelled an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCancelled {
    /// Id of the order.
    pub order_id: String,
    /// Reason, in words.
    pub reason: String,
}

event_type!(OrderPlaced: "shop.order-placed.v1" on "shop.orders" by order_id);
event_type!(OrderCancelled: "shop.order-cancelled.v1" on "shop.orders" by order_id);
