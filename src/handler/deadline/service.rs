//! A handler service that limits the time of each attempt.

use super::limit::with_time_limit;
use crate::handler::Outcome;
use crate::handler::context::Delivery;
use futures_util::future::Either;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// A handler service that limits the time of each attempt. At the limit the handler's future is
/// dropped, and the attempt ends with [`TooSlow`](super::TooSlow), which the default classifier
/// maps to [`Class::Timeout`](crate::handler::Class::Timeout).
#[derive(Clone)]
pub(crate) struct Limited<H> {
    handler: H,
    limit: Option<Duration>,
}

impl<H> Limited<H> {
    /// Limits each attempt to `limit`; `None` for no limit.
    pub(crate) fn new(handler: H, limit: Option<Duration>) -> Self {
        Self { handler, limit }
    }
}

pub(in crate::handler) type WithTimeLimit<F> =
    Pin<Box<dyn Future<Output = <F as Future>::Output> + Send>>;

impl<H> tower::Service<Delivery> for Limited<H>
where
    H: tower::Service<Delivery, Response = Outcome>,
    H::Future: Send + 'static,
    H::Error: 'static,
{
    type Response = Outcome;
    type Error = H::Error;
    type Future = Either<H::Future, WithTimeLimit<H::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), H::Error>> {
        self.handler.poll_ready(cx)
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let handled = self.handler.call(delivery);
        match self.limit {
            None => Either::Left(handled),
            Some(limit) => Either::Right(Box::pin(async move {
                match with_time_limit(handled, limit).await {
                    Ok(outcome) => outcome,
                    Err(error) => Ok(Outcome::Retry(error.into())),
                }
            })),
        }
    }
}
