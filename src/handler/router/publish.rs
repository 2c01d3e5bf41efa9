//! Publishes the events that a handler staged.
//!
//! All records are enqueued before the first acknowledgement is awaited: librdkafka sends them in
//! this order and in few requests. If one fails, the delivery is retried, and all are published
//! again with the same ids.

use crate::event::OutgoingRecord;
use crate::handler::deadline::outside_handler_time;
use crate::handler::{Context, HandlerError, Outcome};
use crate::publisher::PublishError;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

/// Runs a handler and publishes the events of its context. With an inbox, publishing waits for the
/// claim's completion.
pub(super) fn run_and_publish(
    handled: impl Future<Output = Outcome> + Send + 'static,
    context: Option<Context>,
) -> OutcomeFuture {
    Box::pin(async move {
        let outcome = handled.await;
        Ok(match context {
            Some(context) if context.inbox().is_none() && outcome.is_success() => {
                publish(&context, context.take_staged(), outcome).await
            }
            _ => outcome,
        })
    })
}

/// Publishes in order and returns `outcome` after all acknowledgements.
pub(super) async fn publish(
    context: &Context,
    records: Vec<OutgoingRecord>,
    outcome: Outcome,
) -> Outcome {
    if records.is_empty() {
        return outcome;
    }
    let Some(publisher) = context.publisher() else {
        return Outcome::Retry(HandlerError::permanent(
            "events stored in the inbox cannot be published: this consumer has no publisher; give \
             it one with Consumer::with_publisher",
        ));
    };
    let mut receipts = Vec::with_capacity(records.len());
    for record in records {
        match outside_handler_time(publisher.enqueue_record(record)).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => return Outcome::Retry(publish_failure(error)),
        }
    }
    for receipt in receipts {
        if let Err(error) = outside_handler_time(receipt).await {
            return Outcome::Retry(publish_failure(error));
        }
    }
    context.sent();
    outcome
}

/// A failure of the brokers, not of the event: the event is retried until they accept it. A record
/// that is too large or unfit for its topic is the handler's failure and is permanent.
fn publish_failure(error: PublishError) -> HandlerError {
    match error {
        PublishError::TooLarge { .. }
        | PublishError::Unfit { .. }
        | PublishError::NoPartition { .. } => HandlerError::permanent(error),
        error => HandlerError::outage(error).dependency("kafka"),
    }
}

/// The future of a router. Boxed, because handlers of different types share one router.
pub(super) type OutcomeFuture = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;
