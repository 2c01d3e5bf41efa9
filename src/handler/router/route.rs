//! The handlers of one router, ready to be called.

use super::checked_payload::Payload;
use super::publish::{OutcomeFuture, run_and_publish};
use crate::event::{Attributes, EventType, Record};
use crate::handler::Outcome;
use crate::handler::batch::BatchSettings;
use crate::handler::context::ContextSource;
use crate::handler::extract::{Function, Needs, RawFunction};
use std::sync::Arc;

/// The additional state of a batch handler's route.
pub(super) struct BatchRoute {
    pub(super) settings: BatchSettings,
    /// Creates the handler with an empty queue.
    pub(super) make: Box<dyn Fn() -> Arc<Call> + Send + Sync>,
}

impl BatchRoute {
    /// The same handler for a changed router. It shares no batch with the router it was cloned
    /// from, which may have another inbox.
    pub(super) fn for_changed_router(&self) -> Arc<Call> {
        (self.make)()
    }
}

/// Reads a payload and calls the handler with it. Returns the outcome of a payload that is not of
/// the handler's type.
pub(super) type Call = dyn Fn(Attributes, Payload<'_>, ContextSource<'_>) -> Result<OutcomeFuture, Outcome>
    + Send
    + Sync;

/// Calls a raw or a fallback handler. Every record is fit for it.
pub(super) type CallRaw = dyn Fn(Record, ContextSource<'_>) -> OutcomeFuture + Send + Sync;

/// The handler of one event type.
pub(super) struct Route {
    pub(super) handler: String,
    pub(super) needs: Needs,
    pub(super) call: Arc<Call>,
    /// Present for a batch handler.
    pub(super) batch: Option<Arc<BatchRoute>>,
}

impl Clone for Route {
    fn clone(&self) -> Self {
        let call = match &self.batch {
            Some(batch) => batch.for_changed_router(),
            None => Arc::clone(&self.call),
        };
        Self {
            handler: self.handler.clone(),
            needs: self.needs.clone(),
            call,
            batch: self.batch.clone(),
        }
    }
}

/// The handler of records that are no CloudEvents.
#[derive(Clone)]
pub(super) struct RawRoute {
    pub(super) needs: Needs,
    pub(super) call: Arc<CallRaw>,
}

impl Route {
    pub(super) fn new<T: EventType, Args, F: Function<T, Args>>(
        handler: String,
        function: F,
    ) -> Self {
        let call: Arc<Call> = Arc::new(move |attributes, payload, source| {
            let handled = function.call(payload.read::<T>(attributes)?, &source);
            Ok(run_and_publish(handled, source.into_context()))
        });
        let needs = F::needs();
        Self {
            handler,
            needs,
            call,
            batch: None,
        }
    }
}

impl RawRoute {
    pub(super) fn new<Args, F: RawFunction<Args>>(function: F) -> Self {
        let call: Arc<CallRaw> = Arc::new(move |record, source| {
            let handled = function.call(record, &source);
            run_and_publish(handled, source.into_context())
        });
        let needs = F::needs();
        Self { needs, call }
    }
}
