//! A router by event type: decodes, validates, claims, calls the handler, commits, publishes.

use super::extract::{Function, Needs, RawFunction};
use super::{Context, DeadReason, Delivery, HandlerError, Outcome, Stage};
use crate::event::{Attributes, DecodeError, Event, EventType, OutgoingRecord, Record, decode};
use crate::inbox::{Claimed, Inbox, InboxError, InboxKey};
use crate::kafka::ConfigError;
use crate::schema::{Catalogue, ValidationError};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

mod replies;

type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Invoke = dyn Fn(Attributes, Payload<'_>, &Context) -> Result<OutcomeFuture, serde_json::Error>
    + Send
    + Sync;
type InvokeRaw = dyn Fn(Record, &Context) -> OutcomeFuture + Send + Sync;

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
    invoke: Arc<Invoke>,
}

#[derive(Clone)]
struct RawRoute {
    needs: Needs,
    invoke: Arc<InvokeRaw>,
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
        let invoke: Arc<Invoke> = Arc::new(move |attributes, payload, context| {
            let event = Event {
                attributes,
                data: payload.read::<T>()?,
            };
            Ok(function.call(event, context))
        });
        self.change(|inner| {
            inner.routes.insert(
                T::TYPE,
                Route {
                    handler: handler.into(),
                    needs: F::needs(),
                    invoke,
                },
            );
        })
    }

    /// Handles records that are no CloudEvents.
    pub fn raw<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        let invoke: Arc<InvokeRaw> =
            Arc::new(move |record, context| function.call(record, context));
        self.change(|inner| {
            inner.raw = Some(RawRoute {
                needs: F::needs(),
                invoke,
            })
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
    type Error = HandlerError;
    type Future = Pin<Box<dyn Future<Output = Result<Outcome, HandlerError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), HandlerError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let inner = Arc::clone(&self.inner);
        Box::pin(async move { Ok(inner.dispatch(delivery).await) })
    }
}

/// A handler picked for a record, ready to run.
struct Picked {
    handler: String,
    identity: (String, String),
    context: Context,
    future: Box<dyn FnOnce(&Context) -> Result<OutcomeFuture, Outcome> + Send>,
}

impl Inner {
    async fn dispatch(self: Arc<Self>, delivery: Delivery) -> Outcome {
        let picked = match self.pick(delivery) {
            Ok(picked) => picked,
            Err(outcome) => return outcome,
        };
        match &self.inbox {
            None => without_inbox(picked).await,
            Some(inbox) => with_inbox(inbox.as_ref(), picked).await,
        }
    }

    /// Decodes and validates the record and finds its handler; or the outcome for a record that no handler sees.
    fn pick(self: &Arc<Self>, delivery: Delivery) -> Result<Picked, Outcome> {
        let record = delivery.record.clone();
        let envelope = match decode(record.headers(), record.value()) {
            Ok(envelope) => envelope,
            Err(DecodeError::NotAnEvent) => return self.pick_raw(delivery),
            Err(error) => return Err(dead(Stage::Decode, &error)),
        };
        let Some(route) = self.routes.get(envelope.attributes.ty.as_str()) else {
            return Err(Outcome::Ignored);
        };
        let data = envelope.data.as_deref().unwrap_or(b"null");
        let payload = match &self.catalogue {
            None => Payload::Bytes(data),
            Some(catalogue) => {
                Payload::Parsed(validated(catalogue, &envelope.attributes.ty, data)?)
            }
        };
        let attributes = envelope.attributes;
        let identity = (attributes.source.clone(), attributes.id.clone());
        let context = Context::new(
            delivery,
            &route.handler,
            Some(&attributes),
            Arc::clone(&self.state),
        );
        todo!("{:?} {:?}", identity.0, context.attempt())
    }

    fn pick_raw(self: &Arc<Self>, _delivery: Delivery) -> Result<Picked, Outcome> {
        todo!()
    }
}

fn dead(stage: Stage, error: &dyn std::fmt::Display) -> Outcome {
    Outcome::Dead(DeadReason::new(stage, error.to_string()))
}

fn validated(catalogue: &Catalogue, ty: &str, data: &[u8]) -> Result<serde_json::Value, Outcome> {
    let value = serde_json::from_slice(data).map_err(|error| dead(Stage::Decode, &error))?;
    match catalogue.validate(ty, &value) {
        // A type that the catalogue does not know is judged by `serde` alone.
        Ok(()) | Err(ValidationError::UnknownType(_)) => Ok(value),
        Err(error) => Err(dead(Stage::Schema, &error)),
    }
}

async fn without_inbox(_picked: Picked) -> Outcome {
    todo!()
}
async fn with_inbox(_inbox: &dyn Inbox, _picked: Picked) -> Outcome {
    let _: Option<(Claimed, InboxKey, InboxError, OutgoingRecord)> = None;
    todo!()
}
