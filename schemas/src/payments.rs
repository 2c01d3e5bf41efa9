//! Payments of orders. Keyed by order.

use serde::{Deserialize, Serialize};

/// The payment provider authorized an order's amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentAuthorized {
    /// Id of the order.
    pub order_id: String,
    /// Amount, in cents.
    pub amount_cents: u64,
    /// Number of the authorization at the provider.
    pub authorization: String,
}

/// The payment provider declined an order's amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentDeclined {
    /// Id of the order.
    pub order_id: String,
    /// Amount, in cents.
    pub amount_cents: u64,
    /// Reason, in words.
    pub reason: String,
}

event_type!(PaymentAuthorized: "shop.payment-authorized.v1" on "shop.payments" by order_id);
event_type!(PaymentDeclined: "shop.payment-declined.v1" on "shop.payments" by order_id);
