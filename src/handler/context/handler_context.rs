//! The context of a delivery, as its handler sees it.
//!
//! A handler may keep a clone beyond its end. Nothing that it does with it then has an effect:
//! published events are taken when the handler succeeded, and the transaction is withdrawn
//! ([`TransactionOffer`]) before the claim is completed or abandoned.

use super::delivery::Delivery;
use super::router_settings::{RouteId, RouterSettings, SharedRouter};
use crate::event::{
    ContentDigest, Envelope, Event, EventType, HeadersIter, OutgoingRecord, Record, TraceContext,
    decode, derived_id, published_id, raw_identity,
};
use crate::handler::dedup::{DedupLog, ReusedIds};
use crate::handler::{HandlerError, PublishedIds};
use crate::inbox::{Inbox, InboxKey};
use crate::publisher::Publisher;
use crate::telemetry::current_trace;
use std::any::Any;
use std::cell::OnceCell;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The context of a delivery: its record's metadata, its attempt, and [`Context::publish`]. Cheap
/// to clone.
///
/// Events published through [`Context::publish`] are sent after the handler has succeeded and its
/// transaction is committed. The record is settled after the brokers acknowledged them. A handler
/// that fails publishes nothing.
///
/// ```no_run
/// use evenkeel::event::Record;
/// use evenkeel::handler::{Context, Router};
///
/// async fn log(record: Record, context: Context) {
///     let (topic, offset) = (context.topic(), context.offset());
///     println!("{record:?} of {topic} at offset {offset}, attempt {}", context.attempt());
/// }
///
/// let router = Router::new().raw(log);
/// ```
///
/// A handler that publishes with [`Context::publish`]. Its consumer needs a publisher
/// ([`Consumer::with_publisher`](crate::consumer::Consumer::with_publisher)):
///
/// ```no_run
/// use evenkeel::event::{Event, EventType};
/// use evenkeel::handler::{Context, HandlerError, Router};
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPlaced { order_id: String }
/// # impl EventType for OrderPlaced {
/// #     const TYPE: &'static str = "shop.order-placed.v1";
/// #     const TOPIC: &'static str = "shop.orders";
/// #     fn key(&self) -> String { self.order_id.clone() }
/// # }
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct OrderPaid { order_id: String }
/// # impl EventType for OrderPaid {
/// #     const TYPE: &'static str = "shop.order-paid.v1";
/// #     const TOPIC: &'static str = "shop.payments";
/// #     fn key(&self) -> String { self.order_id.clone() }
/// # }
/// async fn pay(order: Event<OrderPlaced>, context: Context) -> Result<(), HandlerError> {
///     context.publish(OrderPaid { order_id: order.data.order_id })
/// }
///
/// let router = Router::new().on(pay);
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("delivery", &self.inner.delivery)
            .finish_non_exhaustive()
    }
}

struct Inner {
    delivery: Delivery,
    router: Arc<dyn RouterSettings>,
    route: RouteId,
    /// The digest of the event's content, where an inbox compares it.
    content: Option<ContentDigest>,
    /// The delivery's key in the inbox. Read from the record on first use.
    key: OnceLock<InboxKey>,
    trace: OnceLock<Option<TraceContext>>,
    /// The context of the delivery's span, for a handler that runs outside of it.
    span_trace: OnceLock<TraceContext>,
    /// Events to publish if the handler succeeds, in order. Their number is part of their ids.
    staged: Mutex<Vec<OutgoingRecord>>,
    /// The inbox's transaction while it is offered and not taken.
    transaction: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Provides a call with its [`Context`], created only for a handler that has an argument to take
/// from it.
pub struct ContextSource<'a> {
    delivery: &'a Delivery,
    router: &'a dyn SharedRouter,
    route: RouteId,
    made: OnceCell<Context>,
}

impl fmt::Debug for ContextSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextSource")
            .field("delivery", self.delivery)
            .finish_non_exhaustive()
    }
}

impl<'a> ContextSource<'a> {
    pub(in crate::handler) fn new(
        delivery: &'a Delivery,
        router: &'a dyn SharedRouter,
        route: RouteId,
        made: Option<Context>,
    ) -> Self {
        Self {
            delivery,
            router,
            route,
            made: made.map_or_else(OnceCell::new, OnceCell::from),
        }
    }

    /// For a call that already has its context.
    pub(in crate::handler) fn of(context: &'a Context) -> Self {
        let Inner {
            delivery,
            router,
            route,
            ..
        } = &*context.inner;
        Self::new(delivery, router, *route, Some(context.clone()))
    }

    pub(in crate::handler) fn delivery(&self) -> &'a Delivery {
        self.delivery
    }

    pub(in crate::handler) fn get(&self) -> &Context {
        self.made
            .get_or_init(|| Context::new(self.delivery, self.router, self.route, None))
    }

    /// Returns the context, if the call needed one.
    pub(in crate::handler) fn into_context(self) -> Option<Context> {
        self.made.into_inner()
    }
}

impl Context {
    pub(in crate::handler) fn new(
        delivery: &Delivery,
        router: &dyn SharedRouter,
        route: RouteId,
        content: Option<ContentDigest>,
    ) -> Self {
        let inner = Inner {
            delivery: delivery.clone(),
            router: router.share(),
            route,
            content,
            key: OnceLock::new(),
            trace: OnceLock::new(),
            span_trace: OnceLock::new(),
            staged: Mutex::default(),
            transaction: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The attempt at the record, from 1. A redelivery to another process counts from 1 again.
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

    /// The record's key; `None` without one.
    pub fn key(&self) -> Option<&[u8]> {
        self.inner.delivery.record.key()
    }

    /// The record's headers, in order.
    pub fn headers(&self) -> HeadersIter<'_> {
        self.inner.delivery.record.headers()
    }

    /// The consumer group that handles the record.
    pub fn group(&self) -> &str {
        &self.inner.delivery.scope.group
    }

    /// The record's trace context, from its header `traceparent`; `None` without a valid one. Read
    /// on the first call.
    pub fn trace(&self) -> Option<&TraceContext> {
        let headers = || self.headers();
        let trace = &self.inner.trace;
        trace
            .get_or_init(|| TraceContext::from_headers(headers()))
            .as_ref()
    }

    /// The publisher, for a handler that needs a receipt at once; `None` for a consumer without
    /// one. Events that it sends are not undone when the handler fails; prefer
    /// [`Context::publish`].
    pub fn publisher(&self) -> Option<&Publisher> {
        self.inner.delivery.scope.publisher.as_ref()
    }

    /// Publishes an event after this delivery has succeeded. Does not block: the event is kept in
    /// the context until then.
    ///
    /// The event's id is derived from the handled event, the group, the handler, the type of the
    /// event and its position among the events that this delivery publishes. A redelivery therefore
    /// publishes the same id. The event continues the trace of the handled event: while spans are
    /// exported (feature `otel`), as a child of the current span.
    ///
    /// An event that cannot be sent later fails the delivery: as an outage of `kafka` if the
    /// brokers are at fault, permanently if the record is too large or unfit for its topic.
    ///
    /// # Errors
    /// If the consumer has no publisher, or if the payload does not follow its schema. Both errors
    /// are permanent: returned with `?`, they dead-letter the record.
    pub fn publish<T: EventType>(&self, data: T) -> Result<(), HandlerError> {
        let Some(publisher) = self.publisher() else {
            return Err(HandlerError::permanent(
                "this consumer has no publisher; give it one with Consumer::with_publisher",
            ));
        };
        // Its id follows below, as it depends on the events before it.
        let mut event = Event::with_id(String::new(), publisher.source(), data);
        let mut staged = self
            .inner
            .staged
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (source, id) = self.identity();
        let (handler, ordinal) = (self.handler(), staged.len());
        event.attributes.id = match self.inner.router.published_ids() {
            PublishedIds::OfGroupAndType => {
                published_id((self.group(), handler), (source, id), T::TYPE, ordinal)
            }
            PublishedIds::OfHandler => derived_id(source, id, handler, ordinal as u32),
        };
        let record = publisher
            .encode(&event, Some(&self.trace_to_publish()))
            .map_err(HandlerError::permanent)?;
        staged.push(record);
        Ok(())
    }

    /// The trace context of a published event: that of the current span while spans are exported,
    /// otherwise a child of the record's. A span of another trace, such as that of a batch, is
    /// passed over for the delivery's own.
    fn trace_to_publish(&self) -> TraceContext {
        let of_span = self.span_trace();
        let own = of_span.or_else(|| self.trace());
        current_trace()
            .filter(|current| own.is_none_or(|own| own.trace_id() == current.trace_id()))
            .or_else(|| of_span.cloned())
            .unwrap_or_else(|| own.map_or_else(TraceContext::root, TraceContext::child))
    }

    /// The context of the delivery's span, after [`Context::note_span`].
    pub(in crate::handler) fn span_trace(&self) -> Option<&TraceContext> {
        self.inner.span_trace.get()
    }

    /// Keeps the context of the current span, which is the delivery's: its handler runs in another
    /// task. Does nothing while no spans are exported.
    pub(in crate::handler) fn note_span(&self) {
        if let Some(trace) = current_trace() {
            self.inner.span_trace.get_or_init(|| trace);
        }
    }

    /// The limit of one attempt; `None` for no limit.
    pub(in crate::handler) fn handler_timeout(&self) -> Option<Duration> {
        self.inner.delivery.scope.handler_timeout
    }

    /// The record's identity as source and id, equal in every delivery.
    pub(in crate::handler) fn identity(&self) -> (&str, &str) {
        let InboxKey { source, id, .. } = self.key_in_inbox();
        (source, id)
    }

    /// The delivery's key in the inbox. Reads the record's identity if [`Context::identified`] was
    /// not called.
    fn key_in_inbox(&self) -> &InboxKey {
        self.inner.key.get_or_init(|| {
            let record = &self.inner.delivery.record;
            let (source, id) = match decode(record.headers(), record.value()) {
                Ok(Envelope { attributes, .. })
                    if matches!(self.inner.route, RouteId::Typed(_)) =>
                {
                    (attributes.source, attributes.id)
                }
                _ => identity_of(record),
            };
            self.inbox_key(source, id)
        })
    }

    /// The delivery's key in the inbox, by the record's identity. It is kept, so that the record is
    /// not read once more.
    pub(in crate::handler) fn identified(&self, source: String, id: String) -> &InboxKey {
        let key = &self.inner.key;
        key.get_or_init(|| self.inbox_key(source, id))
    }

    /// How to handle an event whose id was completed with other content.
    pub(in crate::handler) fn reused_ids(&self) -> ReusedIds {
        self.inner.router.reused_ids()
    }

    /// The inbox. Events are published after its commit.
    pub(in crate::handler) fn inbox(&self) -> Option<&Arc<dyn Inbox>> {
        self.inner.router.inbox()
    }

    /// The brokers acknowledged the events of this delivery: the inbox no longer needs to keep
    /// them.
    pub(in crate::handler) fn sent(&self) {
        if let Some(inbox) = self.inbox() {
            inbox.sent(self.key_in_inbox());
        }
    }

    /// The handler's name in the inbox.
    pub(in crate::handler) fn handler(&self) -> &str {
        self.inner.router.handler_name(self.inner.route)
    }

    /// The record.
    pub(in crate::handler) fn record(&self) -> &Record {
        &self.inner.delivery.record
    }

    /// Rate limits of the deduplication warnings.
    pub(in crate::handler) fn dedup_log(&self) -> &DedupLog {
        self.inner.router.dedup_log()
    }

    /// The inbox key of this delivery, for the record's identity.
    pub(in crate::handler) fn inbox_key(&self, source: String, id: String) -> InboxKey {
        InboxKey {
            group: self.group().to_owned(),
            handler: self.handler().to_owned(),
            source,
            id,
            content: self.inner.content,
        }
    }

    /// Takes the events that the handler published, in order.
    pub(crate) fn take_staged(&self) -> Vec<OutgoingRecord> {
        std::mem::take(
            &mut *self
                .inner
                .staged
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Offers the inbox's transaction to the handler's argument while the returned value lives. If
    /// the handler does not take it, the transaction returns to its claim, even if the handler is
    /// cancelled while others hold its context.
    pub(crate) fn offer_transaction(&self, transaction: Box<dyn Any + Send>) -> TransactionOffer {
        *self.transaction() = Some(transaction);
        TransactionOffer(self.clone())
    }

    fn transaction(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        let transaction = &self.inner.transaction;
        transaction.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the transaction, if it is of type `T` and was not taken before. Only handlers with an
    /// argument that declares
    /// [`FromContext::transaction_type`](crate::handler::FromContext::transaction_type) have one.
    ///
    /// For implementations of [`FromContext`](crate::handler::FromContext), such as an argument
    /// that wraps the transaction in a repository of the service. A handler names the transaction
    /// itself as an argument.
    pub fn take_transaction<T: Any>(&self) -> Option<T> {
        let mut slot = self.transaction();
        slot.take_if(|offered| offered.is::<T>())
            .and_then(|offered| offered.downcast().ok())
            .map(|offered| *offered)
    }

    /// The router's shared state of type `S`, if there is one.
    pub(crate) fn shared<S: Any + Clone>(&self) -> Option<S> {
        let mut states = self.inner.router.states().iter();
        states.find_map(|(_, state)| state.downcast_ref().cloned())
    }
}

/// The identity of a record that is no event.
pub(in crate::handler) fn identity_of(record: &Record) -> (String, String) {
    let content = ContentDigest::of_record(record.timestamp_ms(), record.key(), record.value());
    raw_identity(record.topic(), record.partition(), record.offset(), content)
}

/// A transaction in a context that its handler may take. Dropping this withdraws the offer.
pub(crate) struct TransactionOffer(Context);

impl Drop for TransactionOffer {
    fn drop(&mut self) {
        self.0.transaction().take();
    }
}
