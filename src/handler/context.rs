//! What a handler knows about the delivery it handles.

use super::recognition::{ReusedIds, Said};
use super::router::routes::{Own, RouteId};
use super::{HandlerError, PublishedIds};
use crate::event::{
    ContentDigest, Envelope, Event, EventType, HeadersIter, OutgoingRecord, Record, TraceContext,
    decode, derived_id, published_id, raw_identity,
};
use crate::inbox::{Inbox, InboxKey};
use crate::publisher::Publisher;
use std::any::Any;
use std::cell::OnceCell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What all deliveries of one consumer share.
#[derive(Clone)]
pub struct Scope {
    /// The consumer group.
    pub group: String,
    /// Publishes what handlers publish through their context; none for a consumer that publishes nothing.
    pub publisher: Option<Publisher>,
    /// How long a handler may take; for ever without one.
    /// See [`ConsumerSettings::handler_timeout`](crate::consumer::ConsumerSettings::handler_timeout).
    pub handler_timeout: Option<Duration>,
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
    inner: Arc<Inner>,
}

struct Inner {
    delivery: Delivery,
    routes: Arc<Own>,
    route: RouteId,
    /// What the event says, where an inbox compares it.
    content: Option<ContentDigest>,
    /// Read from the record when they are asked for first.
    identity: OnceLock<(String, String)>,
    trace: OnceLock<Option<TraceContext>>,
    staged: Mutex<Vec<OutgoingRecord>>,
    transaction: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Where a call takes its [`Context`] from: made only for a handler that has an argument to take from it.
pub struct ContextSource<'a> {
    delivery: &'a Delivery,
    routes: &'a Arc<Own>,
    route: RouteId,
    made: OnceCell<Context>,
}

impl<'a> ContextSource<'a> {
    pub(super) fn new(
        delivery: &'a Delivery,
        routes: &'a Arc<Own>,
        route: RouteId,
        made: Option<Context>,
    ) -> Self {
        Self {
            delivery,
            routes,
            route,
            made: made.map_or_else(OnceCell::new, OnceCell::from),
        }
    }

    /// For a call that has its context already.
    pub(super) fn of(context: &'a Context) -> Self {
        let Inner {
            delivery,
            routes,
            route,
            ..
        } = &*context.inner;
        Self::new(delivery, routes, *route, Some(context.clone()))
    }

    pub(super) fn delivery(&self) -> &'a Delivery {
        self.delivery
    }

    pub(super) fn get(&self) -> &Context {
        self.made
            .get_or_init(|| Context::new(self.delivery, self.routes, self.route, None))
    }

    /// The context, if the call needed one.
    pub(super) fn taken(self) -> Option<Context> {
        self.made.into_inner()
    }
}

impl Context {
    pub(super) fn new(
        delivery: &Delivery,
        routes: &Arc<Own>,
        route: RouteId,
        content: Option<ContentDigest>,
    ) -> Self {
        let inner = Inner {
            delivery: delivery.clone(),
            routes: Arc::clone(routes),
            route,
            content,
            identity: OnceLock::new(),
            trace: OnceLock::new(),
            staged: Mutex::default(),
            transaction: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Which attempt at the record this is, from 1; a redelivery to another process counts anew.
    pub fn attempt(&self) -> u32 {
        self.inner.delivery.attempt
    }

    /// The record's topic.
    pub fn topic(&self) -> &str {
        self.inner.delivery.record.topic()
    }

    /// The record's partition.
    pub fn partition(&self) -> i32 {
        self.inner.delivery.record.partition()
    }

    /// The record's offset.
    pub fn offset(&self) -> i64 {
        self.inner.delivery.record.offset()
    }

    /// The record's key.
    pub fn key(&self) -> Option<&[u8]> {
        self.inner.delivery.record.key()
    }

    /// The record's headers in order.
    pub fn headers(&self) -> HeadersIter<'_> {
        self.inner.delivery.record.headers()
    }

    /// The consumer group that handles it.
    pub fn group(&self) -> &str {
        &self.inner.delivery.scope.group
    }

    /// The trace context that the record carries; none if it has none.
    pub fn trace(&self) -> Option<&TraceContext> {
        let headers = || self.headers();
        let trace = &self.inner.trace;
        trace
            .get_or_init(|| TraceContext::from_headers(headers()))
            .as_ref()
    }

    /// The publisher, for a handler that needs a receipt at once. What it sends is not undone when the handler fails;
    /// prefer [`Context::publish`].
    pub fn publisher(&self) -> Option<&Publisher> {
        self.inner.delivery.scope.publisher.as_ref()
    }

    /// Publishes an event once this delivery has succeeded.
    ///
    /// Its id is derived from the handled event, the group, the handler, its type and its position among the events that this delivery
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
            .inner
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (source, id) = self.identity();
        let (handler, ordinal) = (self.handler(), staged.len());
        event.attributes.id = match self.inner.routes.published_ids {
            PublishedIds::OfGroupAndType => {
                published_id((self.group(), handler), (source, id), T::TYPE, ordinal)
            }
            PublishedIds::OfHandler => derived_id(source, id, handler, ordinal as u32),
        };
        let trace = self
            .trace()
            .map_or_else(TraceContext::root, TraceContext::child);
        let record = publisher
            .encode(&event, Some(&trace))
            .map_err(HandlerError::permanent)?;
        staged.push(record);
        Ok(())
    }

    /// How long the handler may take; for ever without one.
    pub(super) fn handler_timeout(&self) -> Option<Duration> {
        self.inner.delivery.scope.handler_timeout
    }

    /// What makes the record the same one in every delivery, as source and id.
    pub(super) fn identity(&self) -> &(String, String) {
        self.inner.identity.get_or_init(|| {
            let record = &self.inner.delivery.record;
            match decode(record.headers(), record.value()) {
                Ok(Envelope { attributes, .. })
                    if matches!(self.inner.route, RouteId::Typed(_)) =>
                {
                    (attributes.source, attributes.id)
                }
                _ => identity_of(record),
            }
        })
    }

    /// What is done with an event whose id was completed with other content.
    pub(super) fn reused_ids(&self) -> ReusedIds {
        self.inner.routes.reused_ids
    }

    /// The inbox, for whose commit publications have to wait.
    pub(super) fn inbox(&self) -> Option<&Arc<dyn Inbox>> {
        self.inner.routes.inbox.as_ref()
    }

    /// The name by which the inbox knows the handler.
    pub(super) fn handler(&self) -> &str {
        self.inner.routes.handler_name(self.inner.route)
    }

    /// The record.
    pub(super) fn record(&self) -> &Record {
        &self.inner.delivery.record
    }

    /// What is said of how the inbox recognises events.
    pub(super) fn said(&self) -> &Said {
        &self.inner.routes.said
    }

    /// The delivery as the inbox knows it, with what makes its record the same one in every delivery.
    pub(super) fn inbox_key(&self, source: String, id: String) -> InboxKey {
        InboxKey {
            group: self.group().to_owned(),
            handler: self.handler().to_owned(),
            source,
            id,
            content: self.inner.content,
        }
    }

    /// Takes what the handler published, in order.
    pub(crate) fn take_staged(&self) -> Vec<OutgoingRecord> {
        std::mem::take(
            &mut *self
                .inner
                .staged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Puts the inbox's transaction where the handler's argument finds it, for as long as what is returned lives: then one that
    /// was not taken goes back to its claim, also when the handler is cancelled while others have its context.
    pub(crate) fn offer_transaction(&self, transaction: Box<dyn Any + Send>) -> Offered {
        *self.transaction() = Some(transaction);
        Offered(self.clone())
    }

    fn transaction(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        let transaction = &self.inner.transaction;
        transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the transaction, if it is of type `T` and nobody took it before. There is one only for a handler one of whose
    /// arguments says so by [`FromContext::transaction_type`](super::FromContext::transaction_type).
    pub fn take_transaction<T: Any>(&self) -> Option<T> {
        let mut slot = self.transaction();
        slot.take_if(|offered| offered.is::<T>())
            .and_then(|offered| offered.downcast().ok())
            .map(|offered| *offered)
    }

    /// The router's shared state, if it is of type `S`.
    pub(crate) fn shared<S: Any + Clone>(&self) -> Option<S> {
        self.inner.routes.state()
    }
}

/// The identity of a record that is no event.
pub(super) fn identity_of(record: &Record) -> (String, String) {
    let content = ContentDigest::of_record(record.timestamp_ms(), record.key(), record.value());
    raw_identity(record.topic(), record.partition(), record.offset(), content)
}

/// A transaction that waits in a context for its handler to take it. Dropped, it waits no longer.
pub(crate) struct Offered(Context);

impl Drop for Offered {
    fn drop(&mut self) {
        self.0.transaction().take();
    }
}
