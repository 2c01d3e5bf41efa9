//! The way of one delivery: read the record, claim it in the inbox, call its handler, commit, publish.

use super::batches::BatchRoute;
use super::payload::{Payload, dead};
use super::unhandled::UnhandledTypes;
use crate::event::{
    Attributes, ContentDigest, DecodeError, Decoded, EventType, OutgoingRecord, Record,
    decode_asked,
};
use crate::handler::context::{ContextSource, identity_of};
use crate::handler::deadline::outside;
use crate::handler::extract::{Function, Needs, RawFunction};
use crate::handler::recognition::{self, ReusedIds, Said};
use crate::handler::{Context, Delivery, HandlerError, Outcome, PublishedIds, Stage};
use crate::inbox::{Claim, Claimed, Inbox, InboxError};
use crate::kafka::ConfigError;
use crate::publisher::PublishError;
use crate::recovery::is_edited;
use crate::schema::Catalogue;
use foldhash::fast::RandomState;
use std::any::{Any, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// The raw handler's name in the inbox.
pub(crate) const RAW_HANDLER: &str = "raw";

/// The fallback handler's name in the inbox.
pub(crate) const FALLBACK_HANDLER: &str = "fallback";

pub(super) type OutcomeFuture = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

/// Reads a payload and calls the handler with it; or the outcome for a payload that is not of its type.
pub(super) type Call = dyn Fn(Attributes, Payload<'_>, ContextSource<'_>) -> Result<OutcomeFuture, Outcome>
    + Send
    + Sync;
type CallRaw = dyn Fn(Record, ContextSource<'_>) -> OutcomeFuture + Send + Sync;

/// Why a second handler for one thing is refused.
const TWICE: &str = "has two handlers: a group handles each record once, so call both functions from one handler, or give the \
                     second one a group of its own";

/// The handlers of a router, and what they are given.
#[derive(Clone, Default)]
pub(in crate::handler) struct Routes {
    /// By event type, with the type's number in `typed`.
    by_type: HashMap<&'static str, usize, RandomState>,
    typed: Vec<Route>,
    pub(super) raw: Option<RawRoute>,
    pub(super) fallback: Option<RawRoute>,
    /// Two handlers for one thing: the first pair that was found, to be refused.
    pub(super) conflict: Option<ConfigError>,
    pub(in crate::handler) inbox: Option<Arc<dyn Inbox>>,
    pub(super) catalogue: Option<Arc<Catalogue>>,
    /// One of each type.
    pub(super) states: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
    pub(in crate::handler) said: Arc<Said>,
    pub(in crate::handler) reused_ids: ReusedIds,
    pub(in crate::handler) published_ids: PublishedIds,
    pub(super) unhandled: Arc<UnhandledTypes>,
}

/// The routes as one router has them. Deliveries count their references on this, which no clone of the router shares, so that
/// workers with a clone each never write to the same counter.
#[derive(Clone, Default)]
pub(in crate::handler) struct Own(Arc<Routes>);

impl Own {
    /// The routes, to be changed for this router alone.
    pub(super) fn change(&mut self) -> &mut Routes {
        Arc::make_mut(&mut self.0)
    }
}

impl Deref for Own {
    type Target = Routes;

    fn deref(&self) -> &Routes {
        &self.0
    }
}

/// The handler of one event type.
pub(super) struct Route {
    pub(super) handler: String,
    pub(super) needs: Needs,
    pub(super) call: Arc<Call>,
    /// Of a batch handler.
    pub(super) batch: Option<Arc<BatchRoute>>,
}

impl Clone for Route {
    fn clone(&self) -> Self {
        let call = match &self.batch {
            Some(batch) => batch.renewed(),
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
    call: Arc<CallRaw>,
}

/// Which of a router's handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::handler) enum RouteId {
    /// The number of one for an event type.
    Typed(usize),
    Raw,
    Fallback,
}

impl Routes {
    /// Gives events of this type to `route`.
    pub(super) fn insert(&mut self, ty: &'static str, route: Route) {
        let handler = &route.handler;
        if self.by_type.insert(ty, self.typed.len()).is_some() {
            self.refuse(ty, TWICE);
        } else if self.has_name(handler) {
            self.refuse_name(&handler.clone());
        }
        self.typed.push(route);
    }

    /// Gives records that are no CloudEvents to `route`.
    pub(super) fn set_raw(&mut self, route: RawRoute) {
        if self.raw.is_some() {
            self.refuse("raw", TWICE);
        } else if self.has_name(RAW_HANDLER) {
            self.refuse_name(RAW_HANDLER);
        }
        self.raw = Some(route);
    }

    /// Gives what no other handler takes to `route`.
    pub(super) fn set_fallback(&mut self, route: RawRoute) {
        if self.fallback.is_some() {
            self.refuse("fallback", TWICE);
        } else if self.has_name(FALLBACK_HANDLER) {
            self.refuse_name(FALLBACK_HANDLER);
        }
        self.fallback = Some(route);
    }

    /// Whether the inbox knows a handler by this name already.
    fn has_name(&self, name: &str) -> bool {
        self.typed.iter().any(|route| route.handler == name)
            || self.raw.is_some() && name == RAW_HANDLER
            || self.fallback.is_some() && name == FALLBACK_HANDLER
    }

    fn refuse_name(&mut self, name: &str) {
        let what = format!("handler {name}");
        self.refuse(
            &what,
            "is the name of two handlers, which the inbox could not tell apart; give one of them another with on_named",
        );
    }

    fn refuse(&mut self, what: &str, why: &str) {
        self.conflict
            .get_or_insert_with(|| ConfigError::new(what, why));
    }

    /// Adds a state, or replaces the one of its type.
    pub(super) fn set_state<S: Any + Send + Sync>(&mut self, state: S) {
        self.states.retain(|(ty, _)| *ty != TypeId::of::<S>());
        self.states.push((TypeId::of::<S>(), Arc::new(state)));
    }

    pub(super) fn has_state(&self, ty: TypeId) -> bool {
        self.states.iter().any(|(there, _)| *there == ty)
    }

    /// The state of this type.
    pub(in crate::handler) fn state<S: Any + Clone>(&self) -> Option<S> {
        self.states
            .iter()
            .find_map(|(_, state)| state.downcast_ref().cloned())
    }

    /// The handler that has every record, whatever it is: the raw or the fallback one where there is no other.
    fn only(&self) -> Option<RouteId> {
        match (self.typed.is_empty(), &self.raw, &self.fallback) {
            (true, Some(_), None) => Some(RouteId::Raw),
            (true, None, Some(_)) => Some(RouteId::Fallback),
            _ => None,
        }
    }

    /// The handler of records that are no CloudEvents.
    fn of_raw(&self) -> Option<RouteId> {
        let raw = self.raw.as_ref().map(|_| RouteId::Raw);
        raw.or_else(|| self.fallback.as_ref().map(|_| RouteId::Fallback))
    }

    fn raw_route(&self, route: RouteId) -> Option<&RawRoute> {
        match route {
            RouteId::Typed(_) => None,
            RouteId::Raw => self.raw.as_ref(),
            RouteId::Fallback => self.fallback.as_ref(),
        }
    }

    /// The handlers of event types.
    pub(super) fn typed(&self) -> impl Iterator<Item = &Route> {
        self.by_type.values().map(|route| &self.typed[*route])
    }

    /// Whether a handler names the store's transaction.
    fn names_transaction(&self, route: RouteId) -> bool {
        let needs = match route {
            RouteId::Typed(route) => Some(&self.typed[route].needs),
            route => self.raw_route(route).map(|raw| &raw.needs),
        };
        needs.is_some_and(Needs::names_transaction)
    }

    /// The name by which the inbox knows a handler.
    pub(in crate::handler) fn handler_name(&self, route: RouteId) -> &str {
        match route {
            RouteId::Typed(route) => &self.typed[route].handler,
            RouteId::Raw => RAW_HANDLER,
            RouteId::Fallback => FALLBACK_HANDLER,
        }
    }
}

impl Route {
    pub(super) fn new<T: EventType, Args, F: Function<T, Args>>(
        handler: String,
        function: F,
    ) -> Self {
        let call: Arc<Call> = Arc::new(move |attributes, payload, source| {
            let handled = function.call(payload.read::<T>(attributes)?, &source);
            Ok(finishing(handled, source.taken()))
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
            finishing(handled, source.taken())
        });
        let needs = F::needs();
        Self { needs, call }
    }
}

/// A record as a handler will get it.
#[allow(
    clippy::large_enum_variant,
    reason = "on the stack, and gone when the handler is called"
)]
enum Input<'a> {
    Event {
        route: usize,
        attributes: Attributes,
        payload: Payload<'a>,
        /// What it says, where an inbox compares it.
        content: Option<ContentDigest>,
    },
    /// For the raw or the fallback handler.
    Raw(RouteId),
}

impl<'a> Input<'a> {
    /// Reads the record and finds its handler; or the outcome for a record that no handler sees.
    fn read(routes: &Routes, delivery: &'a Delivery) -> Result<Self, Outcome> {
        if let Some(conflict) = &routes.conflict {
            // Nobody validated the router. An outage: no record is lost over which of two handlers it should have.
            return Err(Outcome::Retry(
                HandlerError::outage(conflict.clone()).of("router"),
            ));
        }
        if let Some(route) = routes.only() {
            return Ok(Self::Raw(route));
        }
        let record = &delivery.record;
        let find = |ty: &str| {
            let route = routes.by_type.get(ty).copied();
            if route.is_none() && routes.fallback.is_none() {
                routes.unhandled.note(ty, &delivery.scope.group, record);
            }
            route
        };
        let (route, envelope) = match decode_asked(record.headers(), record.value(), find) {
            Ok(Decoded::Asked(route, envelope)) => (route, envelope),
            Ok(Decoded::Other { is_whole: false }) if routes.raw.is_some() => {
                return Ok(Self::Raw(RouteId::Raw));
            }
            Ok(Decoded::Other { .. }) if routes.fallback.is_some() => {
                return Ok(Self::Raw(RouteId::Fallback));
            }
            Ok(Decoded::Other { .. }) => return Err(Outcome::Ignored),
            Err(DecodeError::NotAnEvent) => {
                return routes
                    .of_raw()
                    .map(Self::Raw)
                    .ok_or_else(|| not_an_event(record));
            }
            // It cannot be of a type that has a handler.
            Err(_) if routes.typed.is_empty() && routes.fallback.is_some() => {
                return Ok(Self::Raw(RouteId::Fallback));
            }
            Err(error) => return Err(dead(Stage::Decode, error)),
        };
        let attributes = envelope.attributes;
        let data = envelope.data.unwrap_or(Cow::Borrowed(b"null"));
        let inbox = routes.inbox.as_ref();
        // An edited replay is to have the effect of what failed, whatever it says.
        let content = inbox.filter(|_| !is_edited(record.headers()));
        let content = content.map(|_| ContentDigest::of_event(&attributes.ty, &data));
        let payload = Payload::checked(routes.catalogue.as_deref(), &attributes.ty, data)?;
        Ok(Self::Event {
            route,
            attributes,
            payload,
            content,
        })
    }

    fn route(&self) -> RouteId {
        match self {
            Self::Event { route, .. } => RouteId::Typed(*route),
            Self::Raw(route) => *route,
        }
    }

    /// What makes the record the same one in every delivery, as source and id.
    fn identity(&self, record: &Record) -> (String, String) {
        match self {
            Self::Event { attributes, .. } => (attributes.source.clone(), attributes.id.clone()),
            Self::Raw(_) => identity_of(record),
        }
    }

    /// What an event says; a record that is none has it in its identity.
    fn content(&self) -> Option<ContentDigest> {
        match self {
            Self::Event { content, .. } => *content,
            Self::Raw(_) => None,
        }
    }

    /// Calls the handler; or the outcome for a payload that is not of its type.
    fn call(self, routes: &Routes, source: ContextSource<'_>) -> Result<OutcomeFuture, Outcome> {
        match self {
            Self::Event {
                route,
                attributes,
                payload,
                ..
            } => {
                let route = &routes.typed[route];
                (route.call)(attributes, payload, source)
            }
            Self::Raw(route) => {
                let record = &source.delivery().record;
                let raw = routes.raw_route(route);
                let raw = raw.ok_or_else(|| not_an_event(record))?;
                Ok((raw.call)(record.clone(), source))
            }
        }
    }
}

/// A dead letter for a record that is no CloudEvent and that no handler takes. It says what would take it, as a topic full of
/// them stops the member.
fn not_an_event(record: &Record) -> Outcome {
    let what = match record.value() {
        Some(_) => "the record is not a CloudEvent",
        None => {
            "the record is not a CloudEvent and has no value (a tombstone of a compacted topic)"
        }
    };
    dead(
        Stage::Decode,
        format!("{what}; Router::raw or Router::fallback would take it"),
    )
}

/// Handles one delivery.
pub(super) fn deliver(routes: &Arc<Own>, delivery: Delivery) -> OutcomeFuture {
    if let Some(inbox) = &routes.inbox {
        let (routes, inbox) = (Arc::clone(routes), Arc::clone(inbox));
        return Box::pin(async move { Ok(with_inbox(&routes, inbox.as_ref(), delivery).await) });
    }
    let called = Input::read(routes, &delivery).and_then(|input| {
        let source = ContextSource::new(&delivery, routes, input.route(), None);
        input.call(routes, source)
    });
    called.unwrap_or_else(|outcome| Box::pin(std::future::ready(Ok(outcome))))
}

/// Runs a handler, and publishes what it published through its context; with an inbox, that waits for the claim.
fn finishing(
    handled: impl Future<Output = Outcome> + Send + 'static,
    context: Option<Context>,
) -> OutcomeFuture {
    Box::pin(async move {
        let outcome = handled.await;
        Ok(match context {
            Some(context) if context.inbox().is_none() && is_success(&outcome) => {
                publish(&context, context.take_staged(), outcome).await
            }
            _ => outcome,
        })
    })
}

/// How often a delivery is handled again at once because other transactions are in its way. By then it has been alone in its
/// transaction, so that these are of other programs.
const COLLISIONS_MAX: u32 = 10;

/// Handles one delivery, and again where its transaction collided with another one, which is no attempt.
async fn with_inbox(routes: &Arc<Own>, inbox: &dyn Inbox, delivery: Delivery) -> Outcome {
    for collisions in 0..COLLISIONS_MAX {
        match once(routes, inbox, &delivery).await {
            Outcome::Retry(error) if error.is_collision() => pause(collisions).await,
            outcome => return outcome,
        }
    }
    once(routes, inbox, &delivery).await
}

/// What collides again and again is given time: none at first, and half a second in all.
async fn pause(collisions: u32) {
    if collisions > 0 {
        let most = Duration::from_millis(1 << collisions);
        tokio::time::sleep(most.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

async fn once(routes: &Arc<Own>, inbox: &dyn Inbox, delivery: &Delivery) -> Outcome {
    let input = match Input::read(routes, delivery) {
        Ok(input) => input,
        Err(outcome) => return outcome,
    };
    let route = input.route();
    let context = Context::new(delivery, routes, route, input.content());
    if matches!(route, RouteId::Typed(route) if routes.typed[route].batch.is_some()) {
        // It is claimed with its batch.
        let source = ContextSource::new(delivery, routes, route, Some(context));
        return match input.call(routes, source) {
            Ok(answered) => match answered.await {
                Ok(outcome) => outcome,
            },
            Err(outcome) => outcome,
        };
    }
    let (source, id) = input.identity(&delivery.record);
    let key = context.inbox_key(source, id);
    let claiming = match routes.names_transaction(route) {
        true => inbox.claim(&key),
        false => inbox.claim_without_transaction(&key),
    };
    let mut claim = match outside(claiming).await {
        Ok(Claimed::Fresh(claim)) => claim,
        // With the same ids: whoever published it first may have ended before it was acknowledged.
        Ok(Claimed::Duplicate { unsent }) => {
            recognition::suppressed(&context);
            return publish(&context, unsent, Outcome::Duplicate).await;
        }
        Err(InboxError::Reused) => return recognition::reused(&context),
        Err(error) => return Outcome::Retry(store_error(error)),
    };
    let offered = claim.transaction();
    let offered = offered.map(|transaction| context.offer_transaction(transaction));
    let source = ContextSource::new(delivery, routes, route, Some(context.clone()));
    let outcome = match input.call(routes, source) {
        Ok(handled) => match unless_recalled(handled, claim.as_mut()).await {
            Ok(outcome) => outcome,
            Err(error) => return Outcome::Retry(store_error(error)),
        },
        Err(outcome) => outcome,
    };
    drop(offered);
    if !is_success(&outcome) {
        return failed(claim, outcome, &key.handler).await;
    }
    match outside(claim.complete(context.take_staged())).await {
        Ok(unsent) => {
            recognition::completed(&context);
            publish(&context, unsent, outcome).await
        }
        Err(error) => Outcome::Retry(store_error(error)),
    }
}

/// Gives the claim of a handler back that did not succeed.
async fn failed(claim: Box<dyn Claim>, outcome: Outcome, handler: &str) -> Outcome {
    let (abandoned, outcome) = match outcome {
        Outcome::Retry(error) => match outside(claim.fail(error.cause())).await {
            Ok(true) => return Outcome::Retry(error.collided()),
            abandoned => (abandoned.map(drop), Outcome::Retry(error)),
        },
        outcome => (outside(claim.abandon()).await, outcome),
    };
    if let Err(error) = abandoned {
        tracing::warn!(%error, handler, "a failed handler's claim could not be given back at once");
    }
    outcome
}

/// How the handler ended; it is dropped where its store has stopped answering.
async fn unless_recalled(
    mut handled: OutcomeFuture,
    claim: &mut dyn Claim,
) -> Result<Outcome, InboxError> {
    poll_fn(|cx| match handled.as_mut().poll(cx) {
        Poll::Ready(Ok(outcome)) => Poll::Ready(Ok(outcome)),
        Poll::Pending => claim.poll_recalled(cx).map(Err),
    })
    .await
}

/// Publishes in order, waits for every acknowledgement, and only then lets `outcome` stand.
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
            "stored replies cannot be sent: this consumer has no publisher",
        ));
    };
    let mut receipts = Vec::with_capacity(records.len());
    for record in records {
        match outside(publisher.enqueue_record(record)).await {
            Ok(receipt) => receipts.push(receipt),
            Err(error) => return Outcome::Retry(unpublished(error)),
        }
    }
    for receipt in receipts {
        if let Err(error) = outside(receipt).await {
            return Outcome::Retry(unpublished(error));
        }
    }
    outcome
}

/// The brokers are what failed, not the event: it is tried again until they take it. A record that is too large, or unfit for its
/// topic, is the handler's, and stays so.
fn unpublished(error: PublishError) -> HandlerError {
    match error {
        PublishError::TooLarge { .. }
        | PublishError::Unfit { .. }
        | PublishError::NoPartition { .. } => HandlerError::permanent(error),
        error => HandlerError::outage(error).of("kafka"),
    }
}

pub(in crate::handler) fn is_success(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Done | Outcome::Ignored | Outcome::Duplicate
    )
}

/// A store that cannot be used now is an outage: the events wait for it and none is dead-lettered. A handler's mistake with
/// its transaction is the handler's failure and counts as an attempt, and so does a claim that ran out.
pub(in crate::handler) fn store_error(error: InboxError) -> HandlerError {
    match error {
        InboxError::Other(_) | InboxError::Transaction { .. } | InboxError::Lost { .. } => {
            HandlerError::transient(error)
        }
        InboxError::Replies(_) => HandlerError::permanent(error),
        // Told at completion: the next claim is answered by it.
        InboxError::TryAgain(_) | InboxError::Reused => {
            HandlerError::outage(error).of("inbox").collided()
        }
        error => HandlerError::outage(error).of("inbox"),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::event::RecordBatchBuilder;
    use crate::handler::{Router, Scope, State};
    use crate::inbox::SqliteInbox;
    use sqlx::SqlitePool;
    use std::time::Duration;
    use tower::Service;

    fn delivery() -> Delivery {
        let mut batch = RecordBatchBuilder::new();
        let source = batch.source("orders".into(), 0);
        batch.push(source, 7, 0, None, Some(b"an order"), std::iter::empty());
        Delivery {
            record: batch.build(None).record(0).expect("pushed"),
            attempt: 1,
            scope: Arc::new(Scope {
                group: "group".to_owned(),
                publisher: None,
                handler_timeout: None,
            }),
        }
    }

    async fn write(_: Record, State(pool): State<SqlitePool>) -> Result<(), HandlerError> {
        let insert = sqlx::query("INSERT INTO effects DEFAULT VALUES");
        insert.execute(&pool).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_handler_that_names_no_transaction_may_write_to_the_store_by_another_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let schema = "CREATE TABLE IF NOT EXISTS effects (id INTEGER PRIMARY KEY)";
        let inbox = SqliteInbox::open(&path, "group", schema).await;
        let pool = SqlitePool::connect(&format!("sqlite:{}", path.display())).await;
        let pool = pool.expect("a second connection");
        let mut router = Router::new()
            .with_state(pool.clone())
            .raw(write)
            .with_inbox(inbox.expect("a store"));
        let Ok(first) = router.call(delivery()).await;
        assert!(matches!(first, Outcome::Done), "{first:?}");
        let Ok(again) = router.call(delivery()).await;
        assert!(matches!(again, Outcome::Duplicate), "{again:?}");
        let effects = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM effects");
        assert_eq!(effects.fetch_one(&pool).await.expect("readable"), 1);
    }

    /// 30 deliveries of one store, each of which has its only transaction for 50 ms.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_handlers_time_does_not_run_while_it_waits_for_its_turn() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let inbox = SqliteInbox::open(&path, "group", "").await;
        let slow = async |_: Record, _: crate::inbox::SqliteTx| {
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let router = Router::new().raw(slow).with_inbox(inbox.expect("a store"));
        let limit = Some(Duration::from_millis(400));
        let deliver = |offset| {
            let mut handler = crate::handler::Limited::new(router.clone(), limit);
            let mut delivery = delivery();
            let mut batch = RecordBatchBuilder::new();
            let source = batch.source("orders".into(), 0);
            batch.push(source, offset, 0, None, None, std::iter::empty());
            delivery.record = batch.build(None).record(0).expect("pushed");
            async move { handler.call(delivery).await }
        };
        let began = std::time::Instant::now();
        let all = futures_util::future::join_all((0..30).map(deliver)).await;
        assert!(began.elapsed() > Duration::from_secs(1), "they took turns");
        for outcome in all {
            assert!(matches!(outcome, Ok(Outcome::Done)), "{outcome:?}");
        }
    }
}
