//! Routes to batch handlers: each delivery is read like any other, and then added to a batch.

use super::publish::publish;
use super::route::{BatchRoute, Call, Route};
use crate::event::EventType;
use crate::handler::batch::{BatchSettings, Batcher, Delivered};
use crate::handler::extract::BatchFunction;
use std::sync::Arc;

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
