//! A router by event type: which handler gets which event, and what it is given.

use super::extract::{BatchFunction, Function, RawFunction};
use super::{BatchSettings, Delivery, Outcome, PublishedIds, ReusedIds};
use crate::event::EventType;
use crate::inbox::Inbox;
use crate::kafka::ConfigError;
use crate::schema::Catalogue;
use crate::telemetry::process_span;
use routes::{FALLBACK_HANDLER, OutcomeFuture, Own, RAW_HANDLER, RawRoute, Route, Routes};
use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{self, Poll};
use tracing::{Instrument, Span};

mod batches;
mod payload;
pub(super) mod routes;
#[cfg(test)]
mod tests;
mod unhandled;
mod whole_numbers;

/// Routes each event to the handler of its type.
///
/// | record | without a fallback | with a [fallback](Router::fallback) |
/// |---|---|---|
/// | event of a type that has a handler | that handler | that handler |
/// | such an event that is not valid, by its attributes or its payload | dead letter | dead letter |
/// | event of another type, valid or not | ignored, which settles it | the fallback |
/// | no CloudEvent | the [raw](Router::raw) handler; without one a dead letter | the raw handler; without one the fallback |
///
/// A raw or fallback handler that is the router's only one takes every record. What is ignored is counted in the
/// [`RunReport`](crate::consumer::RunReport), and the log names each such type once.
///
/// Without an inbox every redelivery runs the handler again: effects are then at least once.
pub struct Router {
    routes: Arc<Own>,
}

impl Clone for Router {
    fn clone(&self) -> Self {
        Self {
            routes: Arc::new(Own::clone(&self.routes)),
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
        Self {
            routes: Arc::default(),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Routes)) -> Self {
        change(Arc::make_mut(&mut self.routes).change());
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
        let route = Route::new(handler.into(), function);
        self.change(|routes| routes.insert(T::TYPE, route))
    }

    /// Handles events of type `T` in batches: `function` takes a `Vec` of [`Delivered`](super::Delivered) events, and an outcome
    /// is settled for each. The event type's name is also the handler's name in the inbox.
    ///
    /// With a transactional inbox a batch has one transaction, for all its inbox rows and all that the handler writes; events
    /// that were handled before are not in it. An event that failed is tried again alone.
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

    /// [`Router::on_batch`] with settings of its own.
    pub fn on_batch_with<T: EventType, Args>(
        self,
        settings: BatchSettings,
        function: impl BatchFunction<T, Args>,
    ) -> Self {
        self.on_batch_named(T::TYPE, settings, function)
    }

    /// [`Router::on_batch_with`] with a handler name of its own, which must stay the same across releases: the inbox knows
    /// deliveries by it.
    pub fn on_batch_named<T: EventType, Args, F: BatchFunction<T, Args>>(
        self,
        handler: impl Into<String>,
        settings: BatchSettings,
        function: F,
    ) -> Self {
        let route = Route::batch(handler.into(), settings, function);
        self.change(|routes| routes.insert(T::TYPE, route))
    }

    /// Handles records that are no CloudEvents; where it is the router's only handler, all records, CloudEvents too.
    ///
    /// The inbox knows what it handles by topic, partition, offset and content: a topic that is made anew has new records.
    pub fn raw<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        self.change(|routes| routes.set_raw(RawRoute::new(function)))
    }

    /// Handles what no other handler takes: events of other types, and records that are no CloudEvents if there is no raw
    /// handler. Where it is the router's only handler it takes all records.
    ///
    /// A CloudEvent that is not valid is a dead letter all the same: it may be of a type that has a handler. The inbox knows
    /// what it handles as it knows what a raw handler does.
    ///
    /// ```
    /// use evenkeel::event::Record;
    /// use evenkeel::handler::{Outcome, Router};
    ///
    /// let router = Router::new().fallback(async |record: Record| {
    ///     println!("nobody asks for {record:?}");
    ///     Outcome::Ignored
    /// });
    /// ```
    pub fn fallback<Args, F: RawFunction<Args>>(self, function: F) -> Self {
        self.change(|routes| routes.set_fallback(RawRoute::new(function)))
    }

    /// State that handlers name as `State<S>`. A router has one of each type: a second of the same type replaces the first.
    pub fn with_state<S: Any + Clone + Send + Sync>(self, state: S) -> Self {
        self.change(|routes| routes.set_state(state))
    }

    /// Suppresses redeliveries, and commits each handler's effect together with the inbox row.
    pub fn with_inbox(self, inbox: impl Inbox) -> Self {
        self.change(|routes| routes.inbox = Some(Arc::new(inbox)))
    }

    /// What is done with an event whose id was completed with other content; by default its effect is suppressed.
    pub fn with_reused_ids(self, reused_ids: ReusedIds) -> Self {
        self.change(|routes| routes.reused_ids = reused_ids)
    }

    /// What the ids of events are derived from that handlers publish through their context.
    pub fn with_published_ids(self, published_ids: PublishedIds) -> Self {
        self.change(|routes| routes.published_ids = published_ids)
    }

    /// Validates payloads against their schemas before handlers see them. Without it, only `serde` judges them.
    pub fn with_catalogue(self, catalogue: Arc<Catalogue>) -> Self {
        self.change(|routes| routes.catalogue = Some(catalogue))
    }

    /// Checks that every handler's arguments can be had, that no two handlers are for one thing or of one name, and the settings
    /// of batch handlers.
    ///
    /// [`Consumer::new`](crate::consumer::Consumer::new) calls it for a router that is given to it as it is. Call it yourself
    /// for one inside of layers: with two handlers for one thing it handles no record.
    ///
    /// # Errors
    /// Names the handler and what is missing, or the setting.
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
                    "asks for a transaction that the router's inbox does not have; give the router that inbox with with_inbox",
                ));
            }
            if let Some((_, name)) = needs
                .states
                .iter()
                .find(|(needed, _)| !routes.has_state(*needed))
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
    type Future = OutcomeFuture;

    fn poll_ready(&mut self, _cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let span = process_span(&delivery.record, &delivery.scope.group, delivery.attempt);
        if span.is_none() {
            return routes::deliver(&self.routes, delivery);
        }
        let delivered = span.in_scope(|| routes::deliver(&self.routes, delivery));
        let told = async move {
            let delivered = delivered.await;
            if let Some(kind) = delivered.as_ref().ok().and_then(Outcome::error_type) {
                Span::current().record("error.type", kind);
            }
            delivered
        };
        Box::pin(told.instrument(span))
    }
}
