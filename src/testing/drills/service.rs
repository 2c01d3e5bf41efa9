//! A router with injected faults.

use super::Drills;
use crate::event::decode;
use crate::handler::{Delivery, Outcome};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tower::{Service, ServiceExt};

/// A router, or layers around one, that receives events twice and answers late, as its [`Drills`]
/// define. [`Drills::wrap`] creates it, and a consumer takes it in place of the router.
#[derive(Clone)]
pub struct Drilled<S> {
    inner: S,
    drills: Drills,
}

impl<S> std::fmt::Debug for Drilled<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drilled")
            .field("drills", &self.drills)
            .finish_non_exhaustive()
    }
}

impl Drills {
    /// Wraps a router, or layers around one, so that these drills affect it.
    #[must_use = "only the returned service is affected"]
    pub fn wrap<S>(&self, service: S) -> Drilled<S> {
        Drilled {
            inner: service,
            drills: self.clone(),
        }
    }
}

impl<S> Service<Delivery> for Drilled<S>
where
    S: Service<Delivery, Response = Outcome> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Outcome;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let drills = self.drills.clone();
        let fresh = self.inner.clone();
        // Takes the service that is ready, not its clone.
        let service = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move { deliver(&drills, service, delivery).await })
    }
}

/// Delivers an event once or twice, and records whether its effects changed. With a probe, the
/// deliveries take turns, so that a change belongs to one of them.
async fn deliver<S: Service<Delivery, Response = Outcome>>(
    drills: &Drills,
    mut service: S,
    delivery: Delivery,
) -> Result<Outcome, S::Error> {
    let (name, id) = identity(&delivery);
    let alone = match &drills.plan.effect_probe {
        Some(_) => Some(drills.state.alone.lock().await),
        None => None,
    };
    let (before, completed) = (probe_effects(drills).await, drills.record().completions());
    let outcome = service.call(delivery.clone()).await?;
    let after = probe_effects(drills).await;
    // A delivery whose answer was lost is completed nevertheless.
    let is_completed =
        matches!(outcome, Outcome::Done) || drills.record().completions() > completed;
    if !is_completed && before != after {
        drills.record().changed(&name, &id);
    }
    if drills.plan.twice && matches!(outcome, Outcome::Done | Outcome::Duplicate) {
        let again = service.ready().await?.call(delivery).await?;
        if matches!(again, Outcome::Done) {
            drills.record().ran_again_without_inbox(&name, &id);
        }
        if after != probe_effects(drills).await {
            drills.record().changed(&name, &id);
        }
    }
    drop(alone);
    if let Some((share, hold)) = drills.plan.held
        && drills.applies_to(share, ("held", &id))
    {
        tokio::time::sleep(hold).await;
    }
    Ok(outcome)
}

/// The effects as text. None without a probe.
async fn probe_effects(drills: &Drills) -> Option<String> {
    let probe = drills.plan.effect_probe.as_ref()?;
    Some(probe().await)
}

/// Type and id of the event. The type is the handler's name unless the handler has another. For a
/// raw record: its position.
fn identity(delivery: &Delivery) -> (String, String) {
    let record = &delivery.record;
    match decode(record.headers(), record.value()) {
        Ok(envelope) => (
            envelope.attributes.ty.to_string(),
            envelope.attributes.id.to_string(),
        ),
        Err(_) => (
            "raw".to_owned(),
            format!(
                "{}/{}/{}",
                record.topic(),
                record.partition(),
                record.offset()
            ),
        ),
    }
}
