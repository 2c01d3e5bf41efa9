//! The behaviours of the fake provider. Pure.

use super::{Answer, PaymentRequest};
use evenkeel::event::derived_id;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The behaviour of the provider until the next change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "behaviour", rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// Authorizes every payment immediately.
    #[default]
    Normal,
    /// Authorizes every payment after a delay.
    Slow {
        /// The delay in milliseconds.
        latency_ms: u64,
    },
    /// Declines every payment.
    Declining,
    /// Answers one customer's payments with an HTTP status, and authorizes all others.
    Failing {
        /// Id of the customer.
        customer_id: String,
        /// The status. 500 is a temporary failure; 422 means an invalid request.
        status: u16,
    },
    /// Accepts requests and never answers.
    Hanging,
    /// Answers with HTTP status 503.
    Down,
    /// Refuses connections.
    Unreachable,
}

impl Behaviour {
    /// The delay of an answer.
    pub fn latency(&self) -> Duration {
        match self {
            Self::Slow { latency_ms } => Duration::from_millis(*latency_ms),
            _ => Duration::ZERO,
        }
    }

    /// The answer to the first payment request with this key.
    ///
    /// # Errors
    /// The HTTP status, if the request fails.
    pub fn answer(&self, key: &str, payment: &PaymentRequest) -> Result<Answer, u16> {
        match self {
            // A hanging provider does not send it.
            Self::Hanging | Self::Down | Self::Unreachable => Err(503),
            Self::Failing {
                customer_id,
                status,
            } if *customer_id == payment.customer_id => Err(*status),
            Self::Declining => Ok(Answer::Declined {
                reason: "the provider declines".to_owned(),
            }),
            Self::Normal | Self::Slow { .. } | Self::Failing { .. } => Ok(Answer::Authorized {
                authorization: derived_id("/payment-provider", key, "authorization", 0),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_behaviour_decides() {
        let payment = PaymentRequest {
            order_id: "o-1".to_owned(),
            customer_id: "customer-0001".to_owned(),
            amount_cents: 1,
        };
        let check = |json: &str, expected: Result<bool, u16>| {
            let behaviour: Behaviour = serde_json::from_str(json).expect("a behaviour");
            let answer = behaviour.answer("k", &payment);
            let authorized = answer.map(|answer| matches!(answer, Answer::Authorized { .. }));
            assert_eq!(authorized, expected, "{json}");
        };
        check(r#"{"behaviour":"normal"}"#, Ok(true));
        check(r#"{"behaviour":"slow","latency_ms":5}"#, Ok(true));
        check(r#"{"behaviour":"declining"}"#, Ok(false));
        check(r#"{"behaviour":"down"}"#, Err(503));
        let failing = |customer: &str| {
            format!(r#"{{"behaviour":"failing","customer_id":"{customer}","status":422}}"#)
        };
        check(&failing("customer-0001"), Err(422));
        check(&failing("customer-0002"), Ok(true));
    }
}
