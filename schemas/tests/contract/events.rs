//! The Rust types, as the tests go through them.

use evenkeel::event::EventType;
use serde_json::Value;
use shop_schemas::{
    OrderCancelled, OrderPlaced, PaymentAuthorized, PaymentDeclined, ShipmentDispatched,
    StockReceived, StockRejected, StockReleased, StockReserved,
};

/// What a test needs of a Rust type.
pub(crate) struct Facts {
    pub(crate) ty: &'static str,
    pub(crate) topic: &'static str,
    /// Reads a payload into the type and writes it again, with its key.
    pub(crate) through: fn(&Value) -> serde_json::Result<(Value, String)>,
}

fn facts<T: EventType>() -> Facts {
    Facts {
        ty: T::TYPE,
        topic: T::TOPIC,
        through: |data| {
            let event: T = serde_json::from_value(data.clone())?;
            Ok((serde_json::to_value(&event)?, event.key()))
        },
    }
}

pub(crate) fn all() -> [Facts; 9] {
    [
        facts::<OrderPlaced>(),
        facts::<OrderCancelled>(),
        facts::<StockReceived>(),
        facts::<StockReserved>(),
        facts::<StockRejected>(),
        facts::<StockReleased>(),
        facts::<PaymentAuthorized>(),
        facts::<PaymentDeclined>(),
        facts::<ShipmentDispatched>(),
    ]
}

pub(crate) fn of(ty: &str) -> Facts {
    all()
        .into_iter()
        .find(|facts| facts.ty == ty)
        .unwrap_or_else(|| panic!("no Rust type for {ty}"))
}
