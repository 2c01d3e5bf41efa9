//! Shipments of orders. Keyed by order.

use crate::ReservedLine;
use serde::{Deserialize, Serialize};

/// A paid and reserved order was dispatched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShipmentDispatched {
    /// Id of the order.
    pub order_id: String,
    /// Tracking number of the carrier.
    pub tracking: String,
    /// Contents of the shipment.
    pub lines: Vec<ReservedLine>,
}

event_type!(ShipmentDispatched: "shop.shipment-dispatched.v1" on "shop.shipments" by order_id);
