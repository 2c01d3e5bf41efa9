//! Payments: what became of an order's money. Keyed by order.

use serde::{Deserialize, Serialize};

/// The payment provider holds an order's amount for the shop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// The order.
    pub order_id: String,
    /// The amount, in cents.
    pub amount_cents: u64,
    /// The provider's reference.
    pub authorization: String,
}

/// The payment provider refused an order's amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// The order.
    pub order_id: String,
    /// The amount, in cents.
    pub amount_cents: u64,
    /// Why, for people.
    pub reason: String,
}

event_type!(PaymentAuthorized: "shop.payment-authorized.v1" on "shop.payments" by order_id);
event_type!(PaymentDeclined: "shop.payment-declined.v1" on "shop.payments" by order_id);
