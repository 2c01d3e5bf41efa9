//! The context of a delivery, as its handler sees it.
//!
//! - `delivery`: the request of a handler service; `handler_context`: what a handler takes from it
//! - `router_settings`: the settings of the router that a context reads, as a trait, so that this
//!   module does not import the router, which imports it

mod delivery;
mod handler_context;
mod router_settings;

pub use delivery::{Delivery, DeliveryScope};
pub use handler_context::Context;
pub(super) use handler_context::{ContextSource, identity_of};
pub(super) use router_settings::{RouteId, RouterSettings, SharedRouter};
