//! A payment provider that stands in for a real one: answers over HTTP, and misbehaves when it is told to.
//!
//! Owns what is asked and answered on the wire, and what the provider remembers: a payment that is asked for twice under one
//! key has one answer. Knows neither Kafka nor the shop's events.
//!
//! - [`behaviour`]: what it can be told to do · [`server`]: its two addresses

pub mod behaviour;
pub mod server;

use serde::{Deserialize, Serialize};

/// The header that says which payment is meant: the same key is the same payment.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What is asked: `POST /payments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRequest {
    /// What is paid for.
    pub order_id: String,
    /// Who pays.
    pub customer_id: String,
    /// How much, in cents.
    pub amount_cents: u64,
}

/// What is answered. That a payment is declined is an answer like any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Answer {
    /// The amount is set aside.
    Authorized {
        /// The provider's number for it.
        authorization: String,
    },
    /// It is not.
    Declined {
        /// Why.
        reason: String,
    },
}
