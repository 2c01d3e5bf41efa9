//! Routes to batch handlers: each delivery is read like any other, and then handed to what makes batches of them.

use super::routes::{Call, Route, publish};
use crate::event::EventType;
use crate::handler::batch::{BatchSettings, Batcher, Delivered};
use crate::handler::extract::BatchFunction;
use std::sync::Arc;

/// What makes a route one of a batch handler.
pub(super) struct BatchRoute {
    pub(super) settings: BatchSettings,
    /// The handler with nothing waiting for it.
    make: Box<dyn Fn() -> Arc<Call> + Send + Sync>,
}

impl BatchRoute {
    /// The same handler for a router that was changed: it shares no batch with the one that it was cloned from, which may have
    /// another inbox.
    pub(super) fn renewed(&self) -> Arc<Call> {
        (self.make)()
    }
}

impl Route {
    pub(super) fn batch<T: EventType, Args, F: BatchFunction<T, Args>>(
        handler: String,
        settings: BatchSettings,
        function: F,
    ) -> Self {
        let make = move || -> Arc<Call> {
            let batcher = Batcher::new(settings, function.clone());
            Arc::new(move |attributes, payload, source| {
                let event = payload.read::<T>(attributes)?;
                let context = source.get().clone();
                let batcher = Arc::clone(&batcher);
                Ok(Box::pin(async move {
                    let delivered = Delivered {
                        event,
                        context: context.clone(),
                    };
                    let answer = batcher.deliver(delivered).await;
                    Ok(publish(&context, answer.unsent, answer.outcome).await)
                }))
            })
        };
        Self {
            handler,
            needs: F::needs(),
            call: make(),
            batch: Some(Arc::new(BatchRoute {
                settings,
                make: Box::new(make),
            })),
        }
    }
}
