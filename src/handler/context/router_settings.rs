//! The part of the router that a context needs.

use crate::handler::PublishedIds;
use crate::handler::dedup::{DedupLog, ReusedIds};
use crate::inbox::Inbox;
use std::any::{Any, TypeId};
use std::sync::Arc;

/// One of a router's handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::handler) enum RouteId {
    /// The number of the handler of an event type.
    Typed(usize),
    Raw,
    Fallback,
}

/// The settings of a router that its handlers' contexts read.
pub(in crate::handler) trait RouterSettings: Send + Sync {
    /// The handler's name in the inbox.
    fn handler_name(&self, route: RouteId) -> &str;
    /// The inbox that claims deliveries.
    fn inbox(&self) -> Option<&Arc<dyn Inbox>>;
    /// The shared states, one of each type.
    fn states(&self) -> &[(TypeId, Arc<dyn Any + Send + Sync>)];
    /// The inputs of the ids of published events.
    fn published_ids(&self) -> PublishedIds;
    /// How to handle an id that two different events carry.
    fn reused_ids(&self) -> ReusedIds;
    /// Rate limits of the deduplication warnings.
    fn dedup_log(&self) -> &DedupLog;
}

/// A router that a context can keep a reference to. The reference is created only for a handler
/// that takes its context.
pub(in crate::handler) trait SharedRouter: Send + Sync {
    /// Returns a new reference.
    fn share(&self) -> Arc<dyn RouterSettings>;
}

impl SharedRouter for Arc<dyn RouterSettings> {
    fn share(&self) -> Arc<dyn RouterSettings> {
        Arc::clone(self)
    }
}
