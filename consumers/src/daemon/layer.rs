//! Layers around a service's router: work before or after its handlers, outside of their
//! transaction.

use evenkeel::handler::{Delivery, Outcome};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A router with work around it. Each delivery gets a clone.
pub trait Layer: Clone + Send + Sync + 'static {
    /// Delivers a record to the router, with the work before or after it. Cancelled with its
    /// handler, at any point.
    fn deliver(self, delivery: Delivery) -> impl Future<Output = Outcome> + Send;
}

/// A layer as the service that a consumer calls for each record.
#[derive(Debug, Clone)]
pub struct Layered<L>(pub L);

impl<L: Layer> tower::Service<Delivery> for Layered<L> {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let layer = self.0.clone();
        Box::pin(async move { Ok(layer.deliver(delivery).await) })
    }
}
