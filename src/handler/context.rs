//! What a handler knows about the delivery it handles.

use super::HandlerError;
use crate::event::{
    Attributes, Event, EventType, HeadersIter, OutgoingRecord, Record, TraceContext, derived_id,
};
use crate::publisher::{PublishError, Publisher};
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// What all deliveries of one consumer share.
#[derive(Clone)]
pub struct Scope {
    /// The consumer group.
    pub group: String,
    /// Publishes what handlers publish through their context; none for a consumer that publishes nothing.
    pub publisher: Option<Publisher>,
}

/// One attempt at one record: the request that the handler service is called with.
#[derive(Clone)]
pub struct Delivery {
    /// The record.
    pub record: Record,
    /// Which attempt this is in this process, from 1.
    pub attempt: u32,
    /// What all deliveries of the consumer share.
    pub scope: Arc<Scope>,
}

/// The context of a delivery. Cheap to clone.
///
/// Events published through [`Context::publish`] leave when the handler has succeeded and its transaction is committed;
/// the record is settled after the brokers acknowledged them. A handler that fails publishes nothing.
#[derive(Clone)]
pub struct Context {
    delivery: Delivery,
    state: Arc<State>,
}

/// What the router gives a delivery and takes back afterwards.
struct State {
    handler: String,
    /// The handled event's identity; none for a raw record.
    identity: Option<(String, String)>,
    trace: Option<TraceContext>,
    staged: Mutex<Vec<OutgoingRecord>>,
    transaction: Mutex<Option<Box<dyn Any + Send>>>,
    extensions: Arc<dyn Any + Send + Sync>,
}

impl Context {
    pub(crate) fn new(
        delivery: Delivery,
        handler: &str,
        attributes: Option<&Attributes>,
        extensions: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        let trace = TraceContext::from_headers(delivery.record.headers());
        let state = State {
            handler: handler.to_owned(),
            identity: attributes
                .map(|attributes| (attributes.source.clone(), attributes.id.clone())),
            trace,
            staged: Mutex::default(),
            transaction: Mutex::default(),
            extensions,
        };
        Self {
            delivery,
            state: Arc::new(state),
        }
    }

    /// Which attempt at the record this is, from 1; a redelivery to another process counts anew.
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// The record's topic.
    pub fn topic(&self) -> &str {
        self.delivery.record.topic()
    }

    /// The record's partition.
    pub fn partition(&self) -> i32 {
        self.delivery.record.partition()
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.delivery.record.offset()
    }

    /// The record's key.
    pub fn key(&self) -> Option<&[u8]> {
        self.delivery.record.key()
    }

    /// The record's headers in order.
    pub fn headers(&self) -> HeadersIter<'_> {
        self.delivery.record.headers()
    }

    /// The consumer group that handles it.
    pub fn group(&self) -> &str {
        &self.delivery.scope.group
    }

    /// The trace context that the record carries; none if it has none.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.state.trace.as_ref()
    }

    /// The publisher, for a handler that needs a receipt at once. What it sends is not undone when the handler fails;
    /// prefer [`Context::publish`].
    pub fn publisher(&self) -> Option<&Publisher> {
        self.delivery.scope.publisher.as_ref()
    }

    /// Publishes an event once this delivery has succeeded.
    ///
    /// Its id is derived from the handled event, the handler and the position among the events that this delivery
    /// publishes, so that a redelivery publishes the same id. Its trace context continues the handled event's.
    ///
    /// # Errors
    /// When the consumer has no publisher, or the payload does not follow its schema: both are permanent.
    pub fn publish<T: EventType>(&self, data: T) -> Result<(), HandlerError> {
        let Some(publisher) = self.publisher() else {
            return Err(HandlerError::permanent(
                "this consumer has no publisher; give it one with Consumer::with_publisher",
            ));
        };
        let mut event = Event::new(publisher.source(), data);
        let mut staged = self
            .state
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((source, id)) = &self.state.identity {
            event.attributes.id = derived_id(source, id, &self.state.handler, staged.len() as u32);
        } else {
            let record = format!("{}/{}", self.topic(), self.partition());
            event.attributes.id = derived_id(
                &record,
                &self.offset().to_string(),
                &self.state.handler,
                staged.len() as u32,
            );
        }
        let trace = self
            .state
            .trace
            .as_ref()
            .map_or_else(TraceContext::root, TraceContext::child);
        let record = publisher
            .encode(&event, Some(&trace))
            .map_err(|error| match error {
                PublishError::Invalid(error) => HandlerError::permanent(error),
                error => HandlerError::permanent(error),
            })?;
        staged.push(record);
        Ok(())
    }

    /// Takes what the handler published, in order.
    pub(crate) fn take_staged(&self) -> Vec<OutgoingRecord> {
        std::mem::take(
            &mut *self
                .state
                .staged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Puts the inbox's transaction where the handler's argument finds it.
    pub(crate) fn offer_transaction(&self, transaction: Box<dyn Any + Send>) {
        *self
            .state
            .transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(transaction);
    }

    /// Drops a transaction that the handler did not take, which hands it back to its claim.
    pub(crate) fn discard_transaction(&self) {
        self.state
            .transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Takes the transaction, if it is of type `T` and nobody took it before.
    pub fn take_transaction<T: Any>(&self) -> Option<T> {
        let mut slot = self
            .state
            .transaction
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        slot.take_if(|offered| offered.is::<T>())
            .and_then(|offered| offered.downcast().ok())
            .map(|offered| *offered)
    }

    /// The router's shared state, if it is of type `S`.
    pub(crate) fn shared<S: Any + Clone>(&self) -> Option<S> {
        self.state.extensions.downcast_ref::<S>().cloned()
    }
}
