//! A fake payment provider: answers over HTTP, and misbehaves on command.
//!
//! Owns the wire format and the stored answers: two requests with the same key have one answer.
//! Independent of Kafka and the shop's events.
//!
//! - [`behaviour`]: the behaviours; [`server`]: its two addresses; `payment_span`: a request's span

pub mod behaviour;
mod payment_span;
pub mod server;

use serde::{Deserialize, Serialize};

/// The header that identifies a payment: the same key is the same payment.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The request: `POST /payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// Id of the order.
    pub order_id: String,
    /// Id of the customer who pays.
    pub customer_id: String,
    /// The amount in cents.
    pub amount_cents: u64,
}

/// The answer. A declined payment is a normal answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Answer {
    /// The amount is reserved.
    Authorized {
        /// The provider's number of the authorization.
        authorization: String,
    },
    /// The amount is not reserved.
    Declined {
        /// The reason.
        reason: String,
    },
}
