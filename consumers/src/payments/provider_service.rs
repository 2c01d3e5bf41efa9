//! Queries the payment provider before the handlers run.
//!
//! A handler holds the store's only write lock. If it waited for an external answer, every other
//! writer would wait too. So a layer around the router queries the provider first, and passes the
//! answer to the handler. An order that is delivered twice causes two requests with the key of its
//! event, which the provider treats as one payment. A request carries the record's trace.

use super::provider_span::{Address, PATH, RequestSpan};
use crate::daemon::layer::Layer;
use crate::provider::{Answer, IDEMPOTENCY_KEY, PaymentRequest};
use evenkeel::event::{EventType, decode};
use evenkeel::handler::{Delivery, HandlerError, HttpStatus, Outcome, Router};
use shop_schemas::OrderPlaced;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tower::ServiceExt;
use tracing::Instrument;

/// Name of the dependency in logs, health, metrics and breakers.
const DEPENDENCY: &str = "payment-provider";

/// Time limit of one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers of the provider by event id, while the handlers run.
#[derive(Clone, Default)]
pub struct Answers(Arc<Mutex<HashMap<String, Answer>>>);

impl Answers {
    /// The answer for an event. `None` if the provider was not queried.
    pub fn of(&self, id: &str) -> Option<Answer> {
        self.lock().get(id).cloned()
    }

    /// Stores an answer until the returned guard is dropped.
    fn keep(&self, id: String, answer: Answer) -> Kept {
        self.lock().insert(id.clone(), answer);
        Kept {
            answers: self.clone(),
            id,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes an answer when it is dropped, also if its handler is cancelled.
struct Kept {
    answers: Answers,
    id: String,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.answers.lock().remove(&self.id);
    }
}

/// A router whose handlers receive the provider's answers.
#[derive(Clone)]
pub struct ProviderService {
    router: Router,
    client: reqwest::Client,
    url: String,
    /// The same as attributes of spans.
    address: Arc<Address>,
    answers: Answers,
}

impl ProviderService {
    /// Queries the provider at `url` for the payments of the records of `router`.
    pub fn new(router: Router, url: &str) -> Self {
        let answers = Answers::default();
        let url = format!("{}{PATH}", url.trim_end_matches('/'));
        Self {
            router: router.with_state(answers.clone()),
            client: reqwest::Client::new(),
            address: Arc::new(Address::of(&url)),
            url,
            answers,
        }
    }

    async fn ask(
        &self,
        key: &str,
        payment: &PaymentRequest,
        request: &RequestSpan,
    ) -> Result<Answer, HandlerError> {
        let about_provider =
            |error: reqwest::Error| HandlerError::from(error.without_url()).dependency(DEPENDENCY);
        let asked = self
            .client
            .post(&self.url)
            .timeout(ANSWER_TIMEOUT)
            .header(IDEMPOTENCY_KEY, key)
            .json(payment);
        let sent = request.carried_by(asked).send().await;
        match &sent {
            Ok(answer) => request.answered(answer.status()),
            Err(error) => request.unanswered(error),
        }
        let answer = sent.map_err(about_provider)?;
        if !answer.status().is_success() {
            let status = HttpStatus(answer.status().as_u16());
            return Err(HandlerError::from(status).dependency(DEPENDENCY));
        }
        answer.json().await.map_err(about_provider)
    }
}

impl Layer for ProviderService {
    async fn deliver(self, delivery: Delivery) -> Outcome {
        let payment = payment(&delivery);
        let kept = match &payment {
            Some((id, payment)) => {
                let request = RequestSpan::begin(&self.address, &delivery);
                let asked = self.ask(id, payment, &request);
                let answer = asked.instrument(request.span.clone()).await;
                drop(request);
                match answer {
                    Ok(answer) => Some(self.answers.keep(id.clone(), answer)),
                    Err(error) => return Outcome::Retry(error),
                }
            }
            None => None,
        };
        let outcome = self.router.oneshot(delivery).await;
        drop(kept);
        match outcome {
            Ok(outcome) => outcome,
        }
    }
}

/// The payment request of a record, with the id of its event. `None` for any other record, which
/// the router handles alone.
fn payment(delivery: &Delivery) -> Option<(String, PaymentRequest)> {
    let record = &delivery.record;
    let event = decode(record.headers(), record.value()).ok()?;
    if event.attributes.ty != OrderPlaced::TYPE {
        return None;
    }
    let order: OrderPlaced = serde_json::from_slice(&event.data?).ok()?;
    let payment = PaymentRequest {
        order_id: order.order_id,
        customer_id: order.customer_id,
        amount_cents: order.total_cents,
    };
    Some((event.attributes.id, payment))
}
