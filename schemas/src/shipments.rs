//! Shipments: what left the warehouse. Keyed by order.

use crate::ReservedLine;
use serde::{Deserialize, Serialize};

/// An order that was paid and set aside is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentDispatched {
    /// The order.
    pub order_id: String,
    /// The carrier's number for it.
    pub tracking: String,
    /// What is in it.
    pub lines: Vec<ReservedLine>,
}

event_type!(ShipmentDispatched: "shop.shipment-dispatched.v1" on "shop.shipments" by order_id);
