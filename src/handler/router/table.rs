//! Selects the handler of each record.
//!
//! A conflict between two handlers does not panic: the methods of the router are chained, so the
//! first conflict is kept and reported by `Router::validate`. A router that is used without
//! validation handles no record, as an outage, rather than to lose events to the wrong handler.

use super::route::{RawRoute, Route};
use super::unhandled_log::UnhandledTypes;
use crate::handler::PublishedIds;
use crate::handler::context::{RouteId, RouterSettings, SharedRouter};
use crate::handler::dedup::{DedupLog, ReusedIds};
use crate::handler::extract::Needs;
use crate::inbox::Inbox;
use crate::kafka::ConfigError;
use crate::schema::PayloadValidator;
use foldhash::fast::RandomState;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

/// The raw handler's name in the inbox. In a router with a raw handler, no other handler may have
/// it.
pub const RAW_HANDLER: &str = "raw";

/// The fallback handler's name in the inbox. In a router with a fallback handler, no other handler
/// may have it.
pub const FALLBACK_HANDLER: &str = "fallback";

/// Why a second handler for the same records is refused.
const TWO_HANDLERS: &str = "has two handlers: a group handles each record once, so call both functions from one handler, or give the \
                     second one a group of its own";

/// The handlers of a router, and their arguments' sources.
#[derive(Clone, Default)]
pub(super) struct Routes {
    /// By event type, with the index of the type in `typed`.
    pub(super) by_type: HashMap<&'static str, usize, RandomState>,
    pub(super) typed: Vec<Route>,
    pub(super) raw: Option<RawRoute>,
    pub(super) fallback: Option<RawRoute>,
    /// The first pair of handlers that compete for the same records; it makes the router invalid.
    pub(super) conflict: Option<ConfigError>,
    pub(super) inbox: Option<Arc<dyn Inbox>>,
    pub(super) catalogue: Option<Arc<dyn PayloadValidator>>,
    /// One of each type.
    pub(super) states: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
    dedup_log: Arc<DedupLog>,
    pub(super) reused_ids: ReusedIds,
    pub(super) published_ids: PublishedIds,
    pub(super) unhandled: Arc<UnhandledTypes>,
}

/// The routes of one router. Deliveries count their references on this value, which clones of the
/// router do not share, so that workers with a clone each never write to the same counter.
#[derive(Clone, Default)]
pub(super) struct OwnRoutes(Arc<Routes>);

impl OwnRoutes {
    /// The routes, to be changed for this router alone.
    pub(super) fn change(&mut self) -> &mut Routes {
        Arc::make_mut(&mut self.0)
    }
}

impl Deref for OwnRoutes {
    type Target = Routes;

    fn deref(&self) -> &Routes {
        &self.0
    }
}

impl RouterSettings for OwnRoutes {
    fn handler_name(&self, route: RouteId) -> &str {
        match route {
            RouteId::Typed(route) => &self.typed[route].handler,
            RouteId::Raw => RAW_HANDLER,
            RouteId::Fallback => FALLBACK_HANDLER,
        }
    }

    fn inbox(&self) -> Option<&Arc<dyn Inbox>> {
        self.inbox.as_ref()
    }

    fn states(&self) -> &[(TypeId, Arc<dyn Any + Send + Sync>)] {
        &self.states
    }

    fn published_ids(&self) -> PublishedIds {
        self.published_ids
    }

    fn reused_ids(&self) -> ReusedIds {
        self.reused_ids
    }

    fn dedup_log(&self) -> &DedupLog {
        &self.dedup_log
    }
}

impl SharedRouter for Arc<OwnRoutes> {
    fn share(&self) -> Arc<dyn RouterSettings> {
        Arc::clone(self) as Arc<dyn RouterSettings>
    }
}

impl Routes {
    /// Assigns events of this type to `route`.
    pub(super) fn insert(&mut self, ty: &'static str, route: Route) {
        let handler = &route.handler;
        if self.by_type.insert(ty, self.typed.len()).is_some() {
            self.refuse(ty, TWO_HANDLERS);
        } else if self.has_name(handler) {
            self.refuse_name(&handler.clone());
        }
        self.typed.push(route);
    }

    /// Assigns records that are no CloudEvents to `route`.
    pub(super) fn set_raw(&mut self, route: RawRoute) {
        if self.raw.is_some() {
            self.refuse("raw", TWO_HANDLERS);
        } else if self.has_name(RAW_HANDLER) {
            self.refuse_name(RAW_HANDLER);
        }
        self.raw = Some(route);
    }

    /// Assigns records without another handler to `route`.
    pub(super) fn set_fallback(&mut self, route: RawRoute) {
        if self.fallback.is_some() {
            self.refuse("fallback", TWO_HANDLERS);
        } else if self.has_name(FALLBACK_HANDLER) {
            self.refuse_name(FALLBACK_HANDLER);
        }
        self.fallback = Some(route);
    }

    /// Whether another handler uses this name in the inbox.
    fn has_name(&self, name: &str) -> bool {
        self.typed.iter().any(|route| route.handler == name)
            || self.raw.is_some() && name == RAW_HANDLER
            || self.fallback.is_some() && name == FALLBACK_HANDLER
    }

    fn refuse_name(&mut self, name: &str) {
        let what = format!("handler {name}");
        self.refuse(
            &what,
            "is the name of two handlers, which the inbox could not tell apart; give one of them \
             another name with Router::on_named",
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

    /// The handler of all records: the raw or the fallback handler of a router without another one.
    pub(super) fn only_route(&self) -> Option<RouteId> {
        match (self.typed.is_empty(), &self.raw, &self.fallback) {
            (true, Some(_), None) => Some(RouteId::Raw),
            (true, None, Some(_)) => Some(RouteId::Fallback),
            _ => None,
        }
    }

    /// The handler of records that are no CloudEvents.
    pub(super) fn raw_route_id(&self) -> Option<RouteId> {
        let raw = self.raw.as_ref().map(|_| RouteId::Raw);
        raw.or_else(|| self.fallback.as_ref().map(|_| RouteId::Fallback))
    }

    pub(super) fn raw_route(&self, route: RouteId) -> Option<&RawRoute> {
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
    pub(super) fn names_transaction(&self, route: RouteId) -> bool {
        let needs = match route {
            RouteId::Typed(route) => Some(&self.typed[route].needs),
            route => self.raw_route(route).map(|raw| &raw.needs),
        };
        needs.is_some_and(Needs::names_transaction)
    }
}
