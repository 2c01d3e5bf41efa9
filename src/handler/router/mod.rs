//! A router by event type: selects the handler of each event and provides its arguments.
//!
//! - `table`: the handlers by type; `route`: one handler, ready to be called; `batches`: the same
//!   for a batch handler
//! - `deliver`: the steps of one delivery; `checked_payload`: from bytes to a type;
//!   `publish`: after the commit
//! - `whole_numbers`: integers that `serde` does not accept; `unhandled_log`: types without a
//!   handler
//!
//! The order of the steps is the guarantee. Read before claim: a record that no handler can take
//! leaves no row. Claim before call, commit after it: a redelivery has no effect. Publish after the
//! commit, settle after the acknowledgement: a crash in between repeats the events with the same
//! ids, and loses none.

use super::context::Delivery;
use super::dedup::ReusedIds;
use super::extract::{BatchFunction, Function, RawFunction};
use super::{BatchSettings, Outcome, PublishedIds};
use crate::event::EventType;
use crate::inbox::Inbox;
use crate::kafka::ConfigError;
use crate::schema::PayloadValidator;
use crate::telemetry::process_span;
use publish::OutcomeFuture;
use route::{RawRoute, Route};
use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{self, Poll};
use table::{FALLBACK_HANDLER, OwnRoutes, RAW_HANDLER, Routes};

mod batches;
mod checked_payload;
mod deliver;
mod publish;
mod route;
pub(super) mod table;
#[cfg(test)]
mod tests;
mod unhandled_log;
mod whole_numbers;

/// Routes each event to the handler of its type. Give it to
/// [`Consumer::new`](crate::consumer::Consumer::new).
///
/// | record | without a fallback | with a [fallback](Router::fallback) |
/// |---|---|---|
/// | event of a type that has a handler | that handler | that handler |
/// | such an event that is not valid, by its attributes or its payload | dead letter | dead letter |
/// | event of another type, valid or not | ignored, which settles it | the fallback |
/// | no CloudEvent | the [raw](Router::raw) handler; without one a dead letter | the raw handler; without one the fallback |
///
/// If the router's only handler is a raw or fallback handler, it receives every record. Ignored
/// records are counted in the [`RunReport`](crate::consumer::RunReport), and the log names each
/// such type once.
///
/// Without an inbox every redelivery runs the handler again: effects are then at least once.
///
/// ```no_run
/// use evenkeel::event::{Event, EventType};
/// use evenkeel::handler::Router;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Paid { cents: i64 }
/// # impl EventType for Paid {
/// #     const TYPE: &'static str = "example.paid.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// async fn print(paid: Event<Paid>) {
///     println!("{} cents", paid.data.cents);
/// }
///
/// let router = Router::new().on(print);
/// ```
///
/// Handlers of several types, with a state, an inbox and a handler of all other records:
///
/// ```
/// use evenkeel::event::{Event, EventType, Record};
/// use evenkeel::handler::{HandlerError, Outcome, Router, State};
/// use evenkeel::inbox::MemoryInbox;
///
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Paid { cents: i64 }
/// # impl EventType for Paid {
/// #     const TYPE: &'static str = "example.paid.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Refunded { cents: i64 }
/// # impl EventType for Refunded {
/// #     const TYPE: &'static str = "example.refunded.v1";
/// #     const TOPIC: &'static str = "example.payments";
/// #     fn key(&self) -> String { String::new() }
/// # }
/// #[derive(Clone)]
/// struct Currency(&'static str);
///
/// async fn paid(paid: Event<Paid>, State(currency): State<Currency>) -> Result<(), HandlerError> {
///     println!("{} {}", paid.data.cents, currency.0);
///     Ok(())
/// }
///
/// async fn refunded(refunded: Event<Refunded>) {
///     println!("-{}", refunded.data.cents);
/// }
///
/// let router = Router::new()
///     .on(paid)
///     .on(refunded)
///     .fallback(async |_: Record| Outcome::Ignored)
///     .with_state(Currency("EUR"))
///     .with_inbox(MemoryInbox::default());
/// router.validate()?;
/// # Ok::<(), evenkeel::kafka::ConfigError>(())
/// ```
///
/// A clone shares handlers, states, inbox and catalogue with the original. It has batches of its
/// own, so that each clone of a router with batch handlers runs one batch at a time.
#[must_use = "give it to a consumer"]
pub struct Router {
    routes: Arc<OwnRoutes>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes: &Routes = &self.routes;
        let typed: Vec<&str> = routes.typed.iter().map(|route| &*route.handler).collect();
        f.debug_struct("Router")
            .field("handlers", &typed)
            .field("has_raw", &routes.raw.is_some())
            .field("has_fallback", &routes.fallback.is_some())
            .field("has_inbox", &routes.inbox.is_some())
            .finish_non_exhaustive()
    }
}

impl Clone for Router {
    fn clone(&self) -> Self {
        Self {
            routes: Arc::new(OwnRoutes::clone(&self.routes)),
        }
    }
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// Creates a router without handlers.
    pub fn new() -> Self {
        Self {
            routes: Arc::default(),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Routes)) -> Self {
        change(Arc::make_mut(&mut self.routes).change());
        self
    }

    /// Handles events of type `T`. The event type's name is also the handler's name in the inbox.
    ///
    /// A type has one handler: with a second one the router is invalid ([`Router::validate`]). To
    /// do two things for one event, call both functions from one handler, or use a consumer with
    /// another group for the second one.
    pub fn on<T: EventType, Args>(self, function: impl Function<T, Args>) -> Self {
        self.on_named(T::TYPE, function)
    }

    /// Handles events of type `T` like [`Router::on`], with the given handler name. The name must
    /// stay the same across releases: the inbox identifies deliveries by it. Under another name,
    /// redelivered events have their effect again.
    pub fn on_named<T: EventType, Args, F: Function<T, Args>>(
        self,
        handler: impl Into<String>,
        function: F,
    ) -> Self {
        let route = Route::new(handler.into(), function);
        self.change(|routes| routes.insert(T::TYPE, route))
    }

    /// Handles events of type `T` in batches: `function` takes a `Vec` of
    /// [`Delivered`](super::Delivered) events and returns an outcome for each. The event type's
    /// name is also the handler's name in the inbox.
    ///
    /// With a transactional inbox a batch has one transaction for all its inbox rows and for all
    /// writes of the handler. Events that were handled before are not in the batch. A failed event
    /// is retried alone.
    ///
    /// ```
    /// use evenkeel::event::EventType;
    /// use evenkeel::handler::{Delivered, HandlerError, Router};
    /// use evenkeel::inbox::SqliteTx;
    ///
    /// # #[derive(serde::Serialize, serde::Deserialize)]
    /// # struct Paid { cents: i64 }
    /// # impl EventType for Paid {
    /// #     const TYPE: &'static str = "example.paid.v1";
    /// #     const TOPIC: &'static str = "example.payments";
    /// #     fn key(&self) -> String { String::new() }
    /// # }
    /// async fn add_up(paid: Vec<Delivered<Paid>>, mut tx: SqliteTx) -> Result<(), HandlerError> {
    ///     let cents: i64 = paid.iter().map(|paid| paid.event.data.cents).sum();
    ///     sqlx::query("UPDATE balance SET cents = cents + ?")
    ///         .bind(cents)
    ///         .execute(&mut *tx)
    ///         .await?;
    ///     Ok(())
    /// }
    ///
    /// let router = Router::new().on_batch(add_up);
    /// ```
    pub fn on_batch<T: EventType, Args>(self, function: impl BatchFunction<T, Args>) -> Self {
        self.on_batch_with(BatchSettings::default(), function)
    }

    /// Handles events in batches like [`Router::on_batch`], with the given settings.
    pub fn on_batch_with<T: EventType, Args>(
        self,
        settings: BatchSettings,
        function: impl BatchFunction<T, Args>,
    ) -> Self {
        self.on_batch_named(T::TYPE, settings, function)
    }

    /// Handles events in batches like [`Router::on_batch_with`], with the given handler name. The
    /// name must stay the same across releases: the inbox identifies deliveries by it.
    pub fn on_batch_named<T: EventType, Args, F: BatchFunction<T, Args>>(
        self,
        handler: impl Into<String>,
        settings: BatchSettings,
        function: F,
    ) -> Self {
        let route = Route::batch(handler.into(), settings, function);
        self.change(|routes| routes.insert(T::TYPE, route))
    }

    /// Handles records that are no CloudEvents. If it is the router's only handler, it receives all
    /// records, including CloudEvents.
    ///
    /// The inbox identifies its records by topic, partition, offset and content. The records of a
    /// topic that was deleted and created again are therefore new ones.
    pub fn raw<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        self.change(|routes| routes.set_raw(RawRoute::new(function)))
    }

    /// Handles records that no other handler receives: events of other types, and records that are
    /// no CloudEvents if there is no raw handler. If it is the router's only handler, it receives
    /// all records.
    ///
    /// An invalid CloudEvent is dead-lettered nevertheless, since it may be of a type that has a
    /// handler. The inbox identifies the records like those of a raw handler.
    ///
    /// ```
    /// use evenkeel::event::Record;
    /// use evenkeel::handler::{Outcome, Router};
    ///
    /// let router = Router::new().fallback(async |record: Record| {
    ///     println!("no handler for {record:?}");
    ///     Outcome::Ignored
    /// });
    /// ```
    pub fn fallback<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        self.change(|routes| routes.set_fallback(RawRoute::new(function)))
    }

    /// Sets the state that handlers receive as `State<S>`. A router holds one state of each type: a
    /// second one replaces the first.
    pub fn with_state<S: Any + Clone + Send + Sync>(self, state: S) -> Self {
        self.change(|routes| routes.set_state(state))
    }

    /// Sets the inbox. It suppresses the effects of redeliveries, and a transactional one commits
    /// each handler's effect together with the inbox row. Default: none.
    ///
    /// All handlers of the router use it, each under its own name. While its store is unavailable,
    /// deliveries fail as an outage of the dependency `inbox`.
    pub fn with_inbox(self, inbox: impl Inbox) -> Self {
        self.change(|routes| routes.inbox = Some(Arc::new(inbox)))
    }

    /// Sets how to handle an event whose id was completed with other content. Default: its effect
    /// is suppressed.
    pub fn with_reused_ids(self, reused_ids: ReusedIds) -> Self {
        self.change(|routes| routes.reused_ids = reused_ids)
    }

    /// Sets the inputs of the ids of events that handlers publish through their context. Default:
    /// [`PublishedIds::OfGroupAndType`].
    pub fn with_published_ids(self, published_ids: PublishedIds) -> Self {
        self.change(|routes| routes.published_ids = published_ids)
    }

    /// Validates payloads before handlers receive them: with a
    /// [`Catalogue`](crate::schema::Catalogue) and the feature `json-schema`, against their schemas.
    /// An invalid payload dead-letters its record with the stage
    /// [`Stage::Schema`](super::Stage::Schema). Only `serde` checks events of types that the
    /// catalogue does not know, and all events without a catalogue.
    pub fn with_catalogue(self, catalogue: Arc<impl PayloadValidator>) -> Self {
        self.change(|routes| routes.catalogue = Some(catalogue))
    }

    /// Checks that every handler's arguments are available, that no two handlers compete for one
    /// type or use the same name, and that the settings of batch handlers are valid.
    ///
    /// [`Consumer::new`](crate::consumer::Consumer::new) calls it for a router that is passed to it
    /// directly. Call it yourself for a router inside of layers: a router with two handlers for one
    /// type handles no record.
    ///
    /// # Errors
    /// Names the handler and the missing argument, or the invalid setting. A mistake in the
    /// program: a retry does not help.
    ///
    /// ```
    /// use evenkeel::event::Record;
    /// use evenkeel::handler::{Router, State};
    ///
    /// async fn handle(_: Record, _: State<u32>) {}
    ///
    /// let router = Router::new().raw(handle);
    /// let error = router.validate().expect_err("the state is missing");
    /// assert!(error.to_string().contains("u32"), "{error}");
    /// ```
    pub fn validate(&self) -> Result<(), ConfigError> {
        let routes = &self.routes;
        if let Some(conflict) = &routes.conflict {
            return Err(conflict.clone());
        }
        for batch in routes.typed().filter_map(|route| route.batch.as_ref()) {
            batch.settings.validate()?;
        }
        let inbox = routes.inbox.as_ref();
        let offered = inbox.and_then(|inbox| inbox.transaction_type());
        let typed = routes.typed();
        let typed = typed.map(|route| (route.handler.as_str(), &route.needs));
        let raw = routes.raw.iter().map(|route| (RAW_HANDLER, &route.needs));
        let fallback = routes.fallback.iter();
        let fallback = fallback.map(|route| (FALLBACK_HANDLER, &route.needs));
        for (handler, needs) in typed.chain(raw).chain(fallback) {
            if needs
                .transactions
                .iter()
                .any(|needed| Some(*needed) != offered)
                || needs.transactions.len() > 1
            {
                return Err(ConfigError::new(
                    format!("handler {handler}"),
                    "needs a transaction that the router's inbox does not offer; set that inbox \
                     with Router::with_inbox",
                ));
            }
            if let Some((_, name)) = needs
                .states
                .iter()
                .find(|(needed, _)| !routes.has_state(*needed))
            {
                return Err(ConfigError::new(
                    format!("handler {handler}"),
                    format!("needs the state {name}; set it with Router::with_state"),
                ));
            }
        }
        Ok(())
    }
}

/// Handles one attempt. Always ready. The response is the outcome; there is no error. The future
/// may be dropped at any time: the inbox's claim is then abandoned, and nothing is published.
impl tower::Service<Delivery> for Router {
    type Response = Outcome;
    type Error = Infallible;
    type Future = OutcomeFuture;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let span = process_span(&delivery.record, &delivery.scope.group, delivery.attempt);
        deliver::deliver(&self.routes, delivery, span)
    }
}
