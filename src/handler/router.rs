//! A router by event type: decodes, validates, claims, calls the handler, commits, publishes.

use super::extract::{Function, Needs, RawFunction};
use super::{Context, DeadReason, Delivery, HandlerError, Outcome, Stage};
use crate::event::{Attributes, DecodeError, Event, EventType, OutgoingRecord, Record, decode};
use crate::inbox::{Claimed, Inbox, InboxError, InboxKey};
use crate::kafka::ConfigError;
use crate::schema::{Catalogue, ValidationError};
use crate::telemetry::process_span;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use tracing::Instrument;

mod replies;

type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// A handler with its event, waiting for the context to run in.
type Call = Box<dyn FnOnce(&Context) -> OutcomeFuture + Send>;
type Prepare = dyn Fn(Attributes, Payload<'_>) -> Result<Call, serde_json::Error> + Send + Sync;
type PrepareRaw = dyn Fn(Record) -> Call + Send + Sync;

/// Routes each event to the handler of its type.
///
/// Events of other types are ignored, which settles them: a topic may carry types that this service does not care for.
/// Records that are no CloudEvents go to the raw handler, or to the dead-letter topic when there is none.
///
/// Without an inbox every redelivery runs the handler again: effects are then at least once.
#[derive(Clone)]
pub struct Router {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    routes: HashMap<&'static str, Route>,
    raw: Option<RawRoute>,
    inbox: Option<Arc<dyn Inbox>>,
    catalogue: Option<Arc<Catalogue>>,
    state: Arc<dyn Any + Send + Sync>,
    state_type: TypeId,
}

#[derive(Clone)]
struct Route {
    handler: String,
    needs: Needs,
    prepare: Arc<Prepare>,
}

#[derive(Clone)]
struct RawRoute {
    needs: Needs,
    prepare: Arc<PrepareRaw>,
}

/// A payload on its way to a handler: parsed already where a schema had to see it.
enum Payload<'a> {
    Bytes(&'a [u8]),
    Parsed(serde_json::Value),
}

impl Payload<'_> {
    fn read<T: EventType>(self) -> Result<T, serde_json::Error> {
        match self {
            Self::Bytes(bytes) => serde_json::from_slice(bytes),
            Self::Parsed(value) => serde_json::from_value(value),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// A router without handlers.
    pub fn new() -> Self {
        let inner = Inner {
            routes: HashMap::new(),
            raw: None,
            inbox: None,
            catalogue: None,
            state: Arc::new(()),
            state_type: TypeId::of::<()>(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Handles events of type `T`. The event type's name is also the handler's name in the inbox.
    pub fn on<T: EventType, Args>(self, function: impl Function<T, Args>) -> Self {
        self.on_named(T::TYPE, function)
    }

    /// [`Router::on`] with a handler name of its own, which must stay the same across releases: the inbox knows
    /// deliveries by it.
    pub fn on_named<T: EventType, Args, F: Function<T, Args>>(
        self,
        handler: impl Into<String>,
        function: F,
    ) -> Self {
        let prepare: Arc<Prepare> = Arc::new(move |attributes, payload| {
            let data = payload.read::<T>()?;
            let function = function.clone();
            Ok(Box::new(move |context| {
                function.call(Event { attributes, data }, context)
            }))
        });
        let route = Route {
            handler: handler.into(),
            needs: F::needs(),
            prepare,
        };
        self.change(|inner| {
            inner.routes.insert(T::TYPE, route);
        })
    }

    /// Handles records that are no CloudEvents.
    pub fn raw<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        let prepare: Arc<PrepareRaw> = Arc::new(move |record| {
            let function = function.clone();
            Box::new(move |context| function.call(record, context))
        });
        self.change(|inner| {
            inner.raw = Some(RawRoute {
                needs: F::needs(),
                prepare,
            });
        })
    }

    /// State that handlers name as `State<S>`.
    pub fn with_state<S: Any + Clone + Send + Sync>(self, state: S) -> Self {
        self.change(|inner| {
            inner.state_type = TypeId::of::<S>();
            inner.state = Arc::new(state);
        })
    }

    /// Suppresses redeliveries, and commits each handler's effect together with the inbox row.
    pub fn with_inbox(self, inbox: impl Inbox) -> Self {
        self.change(|inner| inner.inbox = Some(Arc::new(inbox)))
    }

    /// Validates payloads against their schemas before handlers see them. Without it, only `serde` judges them.
    pub fn with_catalogue(self, catalogue: Arc<Catalogue>) -> Self {
        self.change(|inner| inner.catalogue = Some(catalogue))
    }

    /// Checks that every handler's arguments can be had.
    ///
    /// # Errors
    /// Names the handler and what is missing.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let offered = self
            .inner
            .inbox
            .as_ref()
            .and_then(|inbox| inbox.transaction_type());
        let routes = self
            .inner
            .routes
            .values()
            .map(|route| (route.handler.as_str(), &route.needs));
        let raw = self.inner.raw.iter().map(|route| ("raw", &route.needs));
        for (handler, needs) in routes.chain(raw) {
            if needs
                .transactions
                .iter()
                .any(|needed| Some(*needed) != offered)
                || needs.transactions.len() > 1
            {
                return Err(ConfigError::new(
                    format!("handler {handler}"),
                    "asks for a transaction that the router's inbox does not have; give the router that inbox with with_inbox",
                ));
            }
            if let Some((_, name)) = needs
                .states
                .iter()
                .find(|(needed, _)| *needed != self.inner.state_type)
            {
                return Err(ConfigError::new(
                    format!("handler {handler}"),
                    format!("asks for the state {name}; give it to the router with with_state"),
                ));
            }
        }
        Ok(())
    }
}

impl tower::Service<Delivery> for Router {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        let span = process_span(&delivery.record, &delivery.scope.group, delivery.attempt);
        Box::pin(async move { Ok(inner.dispatch(delivery).await) }.instrument(span))
    }
}

/// A handler picked for a record, with its event read.
struct Picked {
    /// What makes the delivery the same one for the inbox: source and id.
    identity: (String, String),
    handler: String,
    context: Context,
    call: Call,
}

impl Inner {
    async fn dispatch(&self, delivery: Delivery) -> Outcome {
        let picked = match self.pick(delivery) {
            Ok(picked) => picked,
            Err(outcome) => return outcome,
        };
        match &self.inbox {
            None => without_inbox(picked).await,
            Some(inbox) => with_inbox(inbox.as_ref(), picked).await,
        }
    }

    /// Reads the record and finds its handler; or the outcome for a record that no handler sees.
    fn pick(&self, delivery: Delivery) -> Result<Picked, Outcome> {
        let record = delivery.record.clone();
        let envelope = match decode(record.headers(), record.value()) {
            Ok(envelope) => envelope,
            Err(DecodeError::NotAnEvent) if self.raw.is_some() => return self.pick_raw(delivery),
            Err(error) => return Err(dead(Stage::Decode, error)),
        };
        let ty = envelope.attributes.ty.clone();
        let Some(route) = self.routes.get(ty.as_str()) else {
            return Err(Outcome::Ignored);
        };
        let data = envelope.data.as_deref().unwrap_or(b"null");
        let payload = match &self.catalogue {
            None => Payload::Bytes(data),
            Some(catalogue) => Payload::Parsed(validated(catalogue, &ty, data)?),
        };
        let attributes = envelope.attributes;
        let identity = (attributes.source.clone(), attributes.id.clone());
        let context = Context::new(
            delivery,
            &route.handler,
            Some(&attributes),
            Arc::clone(&self.state),
        );
        let call = (route.prepare)(attributes, payload).map_err(|error| unreadable(&ty, &error))?;
        Ok(Picked {
            identity,
            handler: route.handler.clone(),
            context,
            call,
        })
    }

    fn pick_raw(&self, delivery: Delivery) -> Result<Picked, Outcome> {
        let Some(route) = &self.raw else {
            return Err(dead(Stage::Decode, DecodeError::NotAnEvent));
        };
        let record = delivery.record.clone();
        let identity = (
            format!("{}/{}", record.topic(), record.partition()),
            record.offset().to_string(),
        );
        let context = Context::new(delivery, RAW_HANDLER, None, Arc::clone(&self.state));
        Ok(Picked {
            identity,
            handler: RAW_HANDLER.to_owned(),
            context,
            call: (route.prepare)(record),
        })
    }
}

/// The raw handler's name in the inbox.
const RAW_HANDLER: &str = "raw";

fn dead(stage: Stage, error: impl std::fmt::Display) -> Outcome {
    Outcome::Dead(DeadReason::new(stage, error.to_string()))
}

/// Says where a payload is wrong without repeating any of it, which `serde_json`'s own message would.
fn unreadable(ty: &str, error: &serde_json::Error) -> Outcome {
    let problem = if error.is_data() {
        "does not have the shape of its type"
    } else {
        "is not JSON"
    };
    dead(
        Stage::Decode,
        format!(
            "the payload of {ty} {problem} (line {}, column {})",
            error.line(),
            error.column()
        ),
    )
}

fn validated(catalogue: &Catalogue, ty: &str, data: &[u8]) -> Result<serde_json::Value, Outcome> {
    let value = serde_json::from_slice(data).map_err(|error| unreadable(ty, &error))?;
    match catalogue.validate(ty, &value) {
        // A type that the catalogue does not know is judged by `serde` alone.
        Ok(()) | Err(ValidationError::UnknownType(_)) => Ok(value),
        Err(error) => Err(dead(Stage::Schema, error)),
    }
}

async fn without_inbox(picked: Picked) -> Outcome {
    let outcome = (picked.call)(&picked.context).await;
    if !is_success(&outcome) {
        return outcome;
    }
    publish(&picked.context, picked.context.take_staged(), outcome).await
}

async fn with_inbox(inbox: &dyn Inbox, picked: Picked) -> Outcome {
    let Picked {
        identity: (source, id),
        handler,
        context,
        call,
    } = picked;
    let key = InboxKey {
        group: context.group().to_owned(),
        handler,
        source,
        id,
    };
    let mut claim = match inbox.claim(&key).await {
        Ok(Claimed::Fresh(claim)) => claim,
        Ok(Claimed::Duplicate { replies }) => return repeat(&context, &replies).await,
        Err(error) => return Outcome::Retry(store_error(error)),
    };
    if let Some(transaction) = claim.transaction() {
        context.offer_transaction(transaction);
    }
    let outcome = call(&context).await;
    context.discard_transaction();
    if !is_success(&outcome) {
        if let Err(error) = claim.abandon().await {
            tracing::warn!(%error, handler = key.handler, "a failed handler's claim could not be given back at once");
        }
        return outcome;
    }
    let staged = context.take_staged();
    match claim.complete(replies::encode(&staged)).await {
        Ok(()) => publish(&context, staged, outcome).await,
        Err(error) => Outcome::Retry(store_error(error)),
    }
}

/// Publishes what the first delivery of this event published, with the same ids: it may have ended before its
/// publications were acknowledged.
async fn repeat(context: &Context, replies: &[u8]) -> Outcome {
    match replies::decode(replies) {
        Ok(records) => publish(context, records, Outcome::Duplicate).await,
        Err(error) => Outcome::Retry(HandlerError::permanent(format!(
            "the stored replies cannot be read: {error}"
        ))),
    }
}

/// Publishes in order, waits for every acknowledgement, and only then lets `outcome` stand.
async fn publish(context: &Context, records: Vec<OutgoingRecord>, outcome: Outcome) -> Outcome {
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
        match publisher.enqueue_record(record).await {
            Ok(receipt) => receipts.push(receipt),
            // The brokers are what failed, not the event: it is tried again until they take it.
            Err(error) => return Outcome::Retry(HandlerError::outage(error)),
        }
    }
    for receipt in receipts {
        if let Err(error) = receipt.await {
            return Outcome::Retry(HandlerError::outage(error));
        }
    }
    outcome
}

fn is_success(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Done | Outcome::Ignored | Outcome::Duplicate
    )
}

/// A store that cannot be used now is an outage: the events wait for it and none is dead-lettered. A handler's mistake with
/// its transaction is the handler's failure and counts as an attempt.
fn store_error(error: InboxError) -> HandlerError {
    match error {
        InboxError::Other(_) | InboxError::Transaction { .. } => HandlerError::transient(error),
        error => HandlerError::outage(error),
    }
}
