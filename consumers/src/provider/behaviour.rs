//! What the stand-in can be told to do, and what it does then. Pure.

use super::{Answer, PaymentRequest};
use evenkeel::event::derived_id;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How it behaves, until it is told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "behaviour", rename_all = "snake_case", deny_unknown_fields)]
pub enum Behaviour {
    /// Authorizes every payment at once.
    #[default]
    Normal,
    /// Authorizes every payment, that much later.
    Slow {
        /// Milliseconds.
        latency_ms: u64,
    },
    /// Declines every payment.
    Declining,
    /// Answers with an HTTP status to one customer's payments, and authorizes all others.
    Failing {
        /// The customer.
        customer_id: String,
        /// The status: 500 may pass, 422 says that the request itself is wrong.
        status: u16,
    },
    /// Takes what is asked and never answers.
    Hanging,
    /// Answers with HTTP status 503.
    Down,
    /// Refuses connections.
    Unreachable,
}

impl Behaviour {
    /// How long an answer takes.
    pub fn latency(&self) -> Duration {
        match self {
            Self::Slow { latency_ms } => Duration::from_millis(*latency_ms),
            _ => Duration::ZERO,
        }
    }

    /// The answer to a payment that is asked for under this key for the first time, or an HTTP status.
    ///
    /// # Errors
    /// The status.
    pub fn answer(&self, key: &str, payment: &PaymentRequest) -> Result<Answer, u16> {
        match self {
            // Hanging, nobody hears it.
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
