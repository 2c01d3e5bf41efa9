//! The context of a delivery, as its handler sees it.

mod delivery;
mod handler_context;
mod router_view;

pub use delivery::{Delivery, DeliveryScope};
pub use handler_context::Context;
pub(super) use handler_context::{ContextSource, identity_of};
pub(super) use router_view::{RouteId, RouterView, SharedRouter};
