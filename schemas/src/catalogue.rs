//! The shop's schema documents, embedded in the binary.

use evenkeel::event::EventType;
use evenkeel::schema::{Catalogue, SchemaError};

/// Pairs each event type with its document, whose file is named after the type.
macro_rules! documents {
    ($($event:ident: $name:literal),* $(,)?) => {
        &[$((
            crate::$event::TYPE,
            include_str!(concat!("../events/", $name, ".schema.json")),
        )),*]
    };
}

const DOCUMENTS: &[(&str, &str)] = documents![
    OrderPlaced: "shop.order-placed.v1",
    OrderCancelled: "shop.order-cancelled.v1",
    StockReceived: "shop.stock-received.v1",
    StockReserved: "shop.stock-reserved.v1",
    StockRejected: "shop.stock-rejected.v1",
    StockReleased: "shop.stock-released.v1",
    PaymentAuthorized: "shop.payment-authorized.v1",
    PaymentDeclined: "shop.payment-declined.v1",
    ShipmentDispatched: "shop.shipment-dispatched.v1",
];

/// Compiles the schemas of all the shop's events. Takes some milliseconds: do it once per process.
///
/// # Errors
/// Never with the documents of this crate, which its tests compile.
pub fn catalogue() -> Result<Catalogue, SchemaError> {
    Catalogue::from_texts(DOCUMENTS.iter().copied())
}
